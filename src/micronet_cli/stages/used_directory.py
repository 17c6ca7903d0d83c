"""What a run may do with the directory it is given: go on there, or begin anew."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from micronet_cli.config import to_plain
from micronet_cli.errors import UserError
from micronet_cli.renamed import with_new_names
from micronet_cli.runs.directory import own_paths

FILES = ("init_from", "model.weights", "distill.teacher.weights")
# What saved state and kept results belong to; files among it may have moved.
IDENTITY = ("stage.name", "model", "prune", "quantize", "distill", "optim.name")


def check_directory(config: DictConfig, directory: Path) -> None:
    """Before anything in ``directory`` is touched.

    Raises:
        UserError: the run reads what it would set aside, or resumes a run of another kind.
    """
    recorded = directory / "config.yaml"
    if config.resume and recorded.is_file():
        then = OmegaConf.create(with_new_names(to_plain(OmegaConf.load(recorded))))
        for key in IDENTITY:
            if _identity(then, key) != _identity(config, key):
                raise UserError(
                    f"resume=true: the run in {str(directory)!r} has another {key}; use its own config, or leave "
                    "resume out to start afresh"
                )
    if not config.resume:
        aside = [path.resolve() for path in (*own_paths(directory), directory / "previous")]
        for key in FILES:
            given = OmegaConf.select(config, key)
            path = Path(given or "").expanduser().resolve()
            if given and (path == directory.resolve() or any(path.is_relative_to(own) for own in aside)):
                raise UserError(f"{key}={given!r}: lies in this run's own directory; give another hydra.run.dir")


def _identity(config: Any, key: str) -> Any:
    node = to_plain(OmegaConf.select(config, key))
    nodes = [node, node.get("teacher")] if isinstance(node, dict) else []
    for part in filter(None, nodes):
        part.pop("weights", None)
    return node


def settings(config: Any) -> dict[str, Any]:
    """What a run's results depend on."""
    return {key: value for key, value in with_new_names(to_plain(config)).items() if key not in ("resume", "debug")}
