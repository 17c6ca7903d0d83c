"""Runs that can be compared, their Pareto front, and which of them to look at first.

What is chosen is chosen by val, which had no part in training, and shown with what it reaches on the reported split.
Only where no run has a figure of val does the reported split choose, and the page says so.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from micronet_cli.explore.images import data_set, held_back, same_images
from micronet_cli.explore.lineage import RunData, accuracies, ancestors
from micronet_cli.explore.run_files import number
from micronet_cli.functional.pareto import pareto_front

POINTS_TO_LOSE = 1.0  # at most, of the network that is called small
Runs = Sequence[RunData]
Figures = Mapping[str, Any]


def benchmarks(runs: Runs) -> list[dict[str, Any]]:
    """Benchmarks, that of most runs first; every run gets ``benchmark``, ``front`` and ``latency_front``.

    Each has a ``name``, ``chosen_by`` (a split), ``not_compared`` (runs without a figure of its images) and the places
    in ``runs`` of three of them: ``best``, the most accurate; ``small``, the lowest score within a point of it;
    ``dense``, what the small one began from.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for place, (run, name) in enumerate(zip(runs, _names(runs), strict=True)):
        run["benchmark"] = name
        run["front"] = False
        run["latency_front"] = False
        if name:
            groups[name].append(place)
    found = []
    for name in sorted(groups, key=lambda name: len(groups[name]), reverse=True):
        places = groups[name]
        group = [runs[place] for place in places]
        _mark_front(group, "front", "micronet_score")
        _mark_front(_measured_alike(group), "latency_front", "latency_ms")
        choice = _choice(places, runs)
        found.append({"name": name} | choice)
    return found


def _names(runs: Runs) -> list[str | None]:
    """What each run was measured on; runs of one data set that differ in their images say in what."""
    names = [_benchmark(run["config"], run["metrics"]) for run in runs]
    details = [_images(run["config"], run["metrics"]) for run in runs]
    seen: dict[str | None, set[str]] = defaultdict(set)
    for name, detail in zip(names, details, strict=True):
        seen[name].add(detail)
    found: list[str | None] = []
    for name, detail in zip(names, details, strict=True):
        is_ambiguous = len(seen[name]) > 1
        if name and detail and is_ambiguous:
            found.append(f"{name} ({detail})")
        else:
            found.append(name)
    return found


def _images(config: Figures, metrics: Figures) -> str:
    """How many, and what decides which."""
    parts = []
    if metrics.get("images") is not None:
        parts.append(f"{metrics['images']} images")
    decided = held_back(config, metrics.get("split", "test"))
    for key, value in decided.items():
        if value is not None:
            parts.append(f"{key.removeprefix('data.')}={value}")
    return ", ".join(parts)


def _benchmark(config: Figures, metrics: Figures) -> str | None:
    """What a run was measured on; only runs with the same can be on one front. None without accuracy or score."""
    if metrics.get("status") != "completed":
        return None
    for figure in ("top1", "micronet_score"):
        value = metrics.get(figure)
        if isinstance(value, str) or number(value) is None:
            return None
    split = metrics.get("split", "test")
    profile = metrics.get("score_profile", "score")
    return f"{data_set(config)}, {split}; {profile}{_base(metrics)}"


def _base(metrics: Figures) -> str:
    """The number of parameters that scores are relative to."""
    params = number(metrics.get("storage_params"))
    score = number(metrics.get("storage_score"))
    if not params or not score:
        return ""
    return f", base {params / score / 1e6:.3g} M"


def _mark_front(group: Runs, key: str, cost: str) -> None:
    costs = [run["metrics"][cost] for run in group]
    top1s = [run["metrics"]["top1"] for run in group]
    front = pareto_front(costs, top1s)
    for run, on_front in zip(group, front, strict=True):
        run[key] = on_front


def _measured_alike(group: Runs) -> Runs:
    """Those whose milliseconds are of one batch size and number of threads: the ones that most runs have."""
    alike: dict[tuple, list[RunData]] = defaultdict(list)
    for run in group:
        metrics = run["metrics"]
        if number(metrics.get("latency_ms")) is not None:
            conditions = (metrics.get("latency_batch_size"), metrics.get("latency_threads"))
            alike[conditions].append(run)
    return max(alike.values(), key=len, default=[])


def _score(run: RunData) -> float:
    return run["metrics"]["micronet_score"]


def _choice(places: Sequence[int], runs: Runs) -> dict[str, Any]:
    split, accuracy = _accuracies_to_choose_by(places, runs)

    def rank(place: int) -> tuple[float, float]:
        # Of equals the one of the lower score is the better.
        return accuracy[place], -_score(runs[place])

    best = max(accuracy, key=rank)
    enough = accuracy[best] - POINTS_TO_LOSE
    good_enough = [place for place in accuracy if accuracy[place] >= enough]
    small = min(good_enough, key=lambda place: _score(runs[place]))
    return {
        "chosen_by": split,
        "not_compared": len(places) - len(accuracy),
        "best": best,
        "small": small,
        "dense": _dense(small, places, runs),
    }


def _accuracies_to_choose_by(places: Sequence[int], runs: Runs) -> tuple[str, dict[int, float]]:
    """A split, and top-1 on it of the runs that have one of the same images."""
    reported = runs[places[0]]["metrics"].get("split", "test")
    for split in ("val", reported):
        found = {}
        for place in places:
            top1 = accuracies(runs[place])
            if split in top1:
                found[place] = top1[split]
        if found:
            break
    shared = _most_shared(found, runs, split)
    return split, {place: found[place] for place in shared}


def _most_shared(places: Iterable[int], runs: Runs, split: str) -> list[int]:
    """Of these runs the most that mean the same images by ``split``."""
    groups: list[list[int]] = []
    for place in places:
        for group in groups:
            if same_images(runs[group[0]], runs[place], split):
                group.append(place)
                break
        else:
            groups.append([place])
    return max(groups, key=len)


def _dense(small: int, places: Sequence[int], runs: Runs) -> int:
    """The oldest ancestor that can be compared; without one, the run of the highest score."""
    comparable = [place for place in ancestors(runs[small], runs) if place in places]
    if comparable:
        return comparable[-1]
    return max(places, key=lambda place: _score(runs[place]))
