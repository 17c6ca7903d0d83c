"""Which images a run's figures were measured on: only figures of the same ones can be compared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

Config = Mapping[str, Any]  # dotted key -> value
WHICH_DATA = ("data.variant", "data.test", "data.dataset")  # keys that tell data sets of one class apart
# What decides which images are held back from training, where val is no directory of its own.
HELD_BACK = ("data.train", "data.val_fraction", "data.split_seed")


def data_set(config: Config) -> str:
    """The data set by its class, and by what tells it from others of that class."""
    target = str(config.get("data._target_", "data"))
    name = target.rpartition(".")[2]
    for key in WHICH_DATA:
        if config.get(key):
            return f"{name} {_last(config[key])}".strip()
    return name


def held_back(config: Config, split: str) -> dict[str, Any]:
    """What tells the images of ``split`` from others of the data set: key -> value; nothing for ``test``."""
    if split == "test":
        return {}
    if split == "val" and config.get("data.val"):
        return {"data.val": _last(config["data.val"])}
    found = {key: config.get(key) for key in HELD_BACK}
    if found["data.train"]:
        found["data.train"] = _last(found["data.train"])
    return found


def same_images(one: Mapping[str, Any], other: Mapping[str, Any], split: str) -> bool:
    """Whether two runs, ``config`` and ``metrics`` of each, mean the same images by ``split``."""
    if _identity(one, split) != _identity(other, split):
        return False
    counts = {_count(run, split) for run in (one, other)}
    return len(counts - {None}) <= 1


def _identity(run: Mapping[str, Any], split: str) -> tuple[str, dict[str, Any]]:
    config = run["config"]
    return data_set(config), held_back(config, split)


def _count(run: Mapping[str, Any], split: str) -> Any:
    """How many; None where the run says it of another split alone."""
    metrics = run["metrics"]
    return metrics.get("images") if metrics.get("split", "test") == split else None


def _last(path: Any) -> str:
    """The name of a directory, which may have moved."""
    return Path(str(path)).name
