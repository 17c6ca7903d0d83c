"""What a run may do with the directory it is given: go on there, or begin anew.

A run that goes on obeys every key that has changed, or refuses it by name.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from micronet_cli.config import to_plain
from micronet_cli.errors import UserError
from micronet_cli.renamed import with_new_names
from micronet_cli.runs.directory import Run, own_paths

FILES = ("init_from", "model.weights", "distill.teacher.weights", "eval.against")
# What kept results belong to, in every stage; files among it may have moved.
IDENTITY = ("stage.name", "model", "prune", "quantize", "distill", "optim.name")
# What a saved state holds already: another value would be recorded, and the old one used.
IN_THE_STATE = ("seed", "optim.args", "ptq")
# What makes the state hold more or less, or another beginning, by being 0 or null; any other value is obeyed.
SWITCHES = ("model.pretrained", "model.ema", "optim.momentum", "optim.weight_decay", "trainer.ema_decay")
# Where a training began: the state has taken the place of these files, which may have moved since.
BEGINNINGS = ("init_from", "model.weights")
WAY_OUT = "use its own config, or leave resume out to start afresh"


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
    then = OmegaConf.create(with_new_names(to_plain(OmegaConf.load(recorded))))
    for key in refused(then, config, directory):
        raise UserError(f"resume=true: the run in {str(directory)!r} has another {key}; {WAY_OUT}")


def refused(then: Any, now: Any, directory: Path) -> Iterator[str]:
    """The keys, in full, that differ from the recorded config and that a resumed run would not obey."""
    for key in IDENTITY:
        different = first_difference(_identity(then, key), _identity(now, key), key)
        if different is not None:
            yield different
    if not Run(directory, resume=True, writes=False).state.is_file():
        return
    for key in IN_THE_STATE:
        different = first_difference(_value(then, key), _value(now, key), key)
        if different is not None:
            yield different
    for key in SWITCHES:
        if bool(_value(then, key)) != bool(_value(now, key)):
            yield key
    for key in BEGINNINGS:
        if _began_elsewhere(_value(then, key), _value(now, key)):
            yield key


def first_difference(then: Any, now: Any, key: str) -> str | None:
    """The first key, in full, at or below ``key`` that the two have not in common; null is as good as absent."""
    if then == now:
        return None
    if not isinstance(then, dict) or not isinstance(now, dict):
        return key
    if not then or not now:  # a group that is switched off is empty
        return key
    for name in then | now:
        different = first_difference(then.get(name), now.get(name), f"{key}.{name}")
        if different is not None:
            return different
    return None


def _began_elsewhere(then: str | None, now: str | None) -> bool:
    """Whether a run that began from one file or directory is given another, which is not the same one moved."""
    if then == now:
        return False
    if then is None or now is None:
        return True
    return Path(then).expanduser().exists()


def _value(config: Any, key: str) -> Any:
    value = to_plain(OmegaConf.select(config, key))
    if key == "ptq" and isinstance(value, dict):
        value.pop("memory_mb", None)  # changes nothing but where things wait
    return value


def _identity(config: Any, key: str) -> Any:
    """A part of a config without the weights that it began with."""
    node = _value(config, key)
    if not isinstance(node, dict):
        return node
    for part in (node, node.get("teacher")):
        if isinstance(part, dict):
            part.pop("weights", None)
    if key == "model":
        for beginning in ("pretrained", "ema"):
            node.pop(beginning, None)
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
    for key in ("resume", "debug", "trust"):
        plain.pop(key, None)
    search = plain.get("search") or {}
    search.pop("storage", None)  # a study may be moved, and the record of it has no password
    return plain
