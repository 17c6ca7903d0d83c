"""Runs that can be compared, their Pareto front, and which of them to look at first.

What is chosen is chosen by val, which had no part in training, and shown with what it reaches on the reported split.
Only where no run has a figure of val does the reported split choose, and the page says so.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from micronet_cli.explore.lineage import RunData, accuracies, ancestors
from micronet_cli.explore.run_files import number
from micronet_cli.functional.pareto import pareto_front

WHICH_DATA = ("data.variant", "data.test", "data.dataset")  # keys that tell data sets of one class apart
POINTS_TO_LOSE = 1.0  # at most, of the network that is called small


def benchmarks(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    """Benchmarks, that of most runs first; every run gets ``benchmark`` and ``front``.

    Each has a ``name``, ``chosen_by`` (a split), ``not_compared`` (runs without a figure of that split) and the places
    in ``runs`` of three of them: ``best``, the most accurate; ``small``, the lowest score within a point of it;
    ``dense``, what the small one began from.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for place, run in enumerate(runs):
        run["front"] = False
        run["benchmark"] = _benchmark(run["config"], run["metrics"])
        if run["benchmark"]:
            groups[run["benchmark"]].append(place)
    found = []
    for name, places in groups.items():
        _mark_front([runs[place] for place in places])
        found.append({"name": name} | _choice(places, runs))
    return sorted(found, key=lambda benchmark: len(groups[benchmark["name"]]), reverse=True)


def _benchmark(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str | None:
    """What a run was measured on; only runs with the same can be on one front. None without accuracy or score."""
    if metrics.get("status") != "completed":
        return None
    for figure in ("top1", "micronet_score"):
        value = metrics.get(figure)
        if isinstance(value, str) or number(value) is None:
            return None
    split = metrics.get("split", "test")
    profile = metrics.get("score_profile", "score")
    return f"{_data_set(config)}, {split}; {profile}{_base(metrics)}"


def _data_set(config: Mapping[str, Any]) -> str:
    """The data set by its class, and by what tells it from others of that class."""
    target = str(config.get("data._target_", "data"))
    name = target.rpartition(".")[2]
    for key in WHICH_DATA:
        if config.get(key):
            which = Path(str(config[key])).name
            return f"{name} {which}".strip()
    return name


def _base(metrics: Mapping[str, Any]) -> str:
    """The number of parameters that scores are relative to."""
    params = number(metrics.get("storage_params"))
    score = number(metrics.get("storage_score"))
    if not params or not score:
        return ""
    return f", base {params / score / 1e6:.3g} M"


def _mark_front(group: Sequence[RunData]) -> None:
    scores = [run["metrics"]["micronet_score"] for run in group]
    top1s = [run["metrics"]["top1"] for run in group]
    for run, on_front in zip(group, pareto_front(scores, top1s), strict=True):
        run["front"] = on_front


def _choice(places: Sequence[int], runs: Sequence[RunData]) -> dict[str, Any]:
    split = "val"
    compared = [place for place in places if split in accuracies(runs[place])]
    if not compared:
        split = runs[places[0]]["metrics"].get("split", "test")
        compared = list(places)

    def accuracy(place: int) -> float:
        return accuracies(runs[place])[split]

    def score(place: int) -> float:
        return runs[place]["metrics"]["micronet_score"]

    # Of equals the one of the lower score.
    best = max(compared, key=lambda place: (accuracy(place), -score(place)))
    good_enough = [place for place in compared if accuracy(place) >= accuracy(best) - POINTS_TO_LOSE]
    small = min(good_enough, key=score)
    return {
        "chosen_by": split,
        "not_compared": len(places) - len(compared),
        "best": best,
        "small": small,
        "dense": _dense(small, places, runs),
    }


def _dense(small: int, places: Sequence[int], runs: Sequence[RunData]) -> int:
    """The oldest ancestor that can be compared; without one, the run of the highest score."""
    oldest = None
    for ancestor in ancestors(runs[small], runs):
        if ancestor in places:
            oldest = ancestor
    if oldest is not None:
        return oldest
    return max(places, key=lambda place: runs[place]["metrics"]["micronet_score"])
