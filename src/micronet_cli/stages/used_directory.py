"""What a run may do with the directory it is given: go on there, or begin anew."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from micronet_cli.config import to_plain
from micronet_cli.errors import UserError
from micronet_cli.renamed import with_new_names
from micronet_cli.runs.directory import own_paths

FILES = ("init_from", "model.weights", "distill.teacher.weights", "eval.against")
# What saved state and kept results belong to; files among it may have moved.
IDENTITY = ("stage.name", "model", "prune", "quantize", "distill", "optim.name")


def check_directory(config: DictConfig, directory: Path) -> None:
    """Before anything in ``directory`` is touched.

    Raises:
        UserError: the run reads what it would set aside, or resumes a run of another kind.
    """
    if config.resume:
        _check_same_kind(config, directory)
    else:
        _check_reads_nothing_of(config, directory)


def _check_same_kind(config: DictConfig, directory: Path) -> None:
    recorded = directory / "config.yaml"
    if not recorded.is_file():
        return
    earlier = OmegaConf.create(with_new_names(to_plain(OmegaConf.load(recorded))))
    for key in IDENTITY:
        if _identity(earlier, key) != _identity(config, key):
            raise UserError(
                f"resume=true: the run in {str(directory)!r} has another {key}; use its own config, or leave "
                "resume out to start afresh"
            )


def _identity(config: DictConfig, key: str) -> Any:
    """What ``config`` has at ``key``, without the files that it or its teacher reads."""
    node = to_plain(OmegaConf.select(config, key))
    if isinstance(node, dict):
        node.pop("weights", None)
        if node.get("teacher"):
            node["teacher"].pop("weights", None)
    return node


def _check_reads_nothing_of(config: DictConfig, directory: Path) -> None:
    set_aside = [path.resolve() for path in own_paths(directory)]
    set_aside.append((directory / "previous").resolve())
    for key in FILES:
        given = OmegaConf.select(config, key)
        if not given:
            continue
        path = Path(given).expanduser().resolve()
        within = any(path.is_relative_to(own) for own in set_aside)
        if within or path == directory.resolve():
            raise UserError(f"{key}={given!r}: lies in this run's own directory; give another hydra.run.dir")


def settings(config: Any) -> dict[str, Any]:
    """What a run's results depend on."""
    plain = with_new_names(to_plain(config))
    return {key: value for key, value in plain.items() if key not in ("resume", "debug")}
