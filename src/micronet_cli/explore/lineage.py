"""Which run a run began from, and what changed since: in accuracy on the same images, and in size."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from micronet_cli.explore.images import same_images
from micronet_cli.explore.run_files import number

RunData = dict[str, Any]
Places = Mapping[Path, int]  # a run's directory, resolved -> its place among the runs
STARTS = ("init_from", "model.weights")
# These stages change no network: what they find out is said of the network that they began from.
ABOUT_THEIR_PARENT = ("export", "latency")
SAME_NETWORK = ("eval", *ABOUT_THEIR_PARENT)


def trace_lineage(runs: Sequence[RunData], directories: Sequence[Path]) -> None:
    """Give every run its ``parent``, a place in ``runs`` or None, and what follows from it.

    That is ``against``, the nearest ancestor that was measured on the same images, ``top1_change`` in points and
    ``times_smaller`` by storage; and, in the metrics of the parents, what exports found out of them.
    """
    resolved = [directory.resolve() for directory in directories]
    # A link and what it leads to are one place.
    places = {directory: place for place, directory in enumerate(resolved)}
    for run, directory in zip(runs, resolved, strict=True):
        run["parent"] = _parent(run, directory, places)
    for run in runs:
        _lend_figures(run, runs)
    for run in runs:
        run |= _changes(run, runs)


def ancestors(run: Mapping[str, Any], runs: Sequence[RunData]) -> Iterator[int]:
    """Places in ``runs``, the parent first; runs that name each other come once."""
    seen: set[int] = set()
    place = run["parent"]
    while place is not None and place not in seen:
        seen.add(place)
        yield place
        place = runs[place]["parent"]


def accuracies(run: Mapping[str, Any]) -> dict[str, float]:
    """Split -> top-1 in percent."""
    metrics = run["metrics"]
    found = {}
    val = number(metrics.get("val_top1"))
    if val is not None:
        found["val"] = val
    top1 = number(metrics.get("top1"))
    if top1 is not None:
        split = metrics.get("split", "test")
        found[split] = top1
    return found


def _parent(run: RunData, directory: Path, places: Places) -> int | None:
    for key in STARTS:
        start = run["config"].get(key)
        if isinstance(start, str) and start:
            return _place_of(Path(start).expanduser(), places)
    if run["metrics"].get("stage") == "pipeline":
        # It is its last step; what came of its first one is what there is to tell.
        return _first_below(directory, places)
    return None


def _place_of(start: Path, places: Places) -> int | None:
    """The run that ``start`` is, or is a file of."""
    absolute = start.resolve()
    for path in (absolute, *absolute.parents):
        if path in places:
            return places[path]
    if start.exists():
        return None
    return _place_by_name(start, places)


def _place_by_name(start: Path, places: Places) -> int | None:
    """As above where the runs were moved since: the one that shares most of the end of the path."""
    longest = 0
    found: set[int] = set()
    for path in (start, *start.parents):
        for directory, place in places.items():
            shared = _shared_end(path.parts, directory.parts)
            if shared > longest:
                longest = shared
                found = set()
            if shared == longest and shared > 0:
                found.add(place)
    if len(found) != 1:
        return None
    return found.pop()


def _shared_end(one: Sequence[str], other: Sequence[str]) -> int:
    shared = 0
    for mine, theirs in zip(reversed(one), reversed(other), strict=False):
        if mine != theirs:
            break
        shared += 1
    return shared


def _first_below(directory: Path, places: Places) -> int | None:
    for other, place in places.items():
        if directory in other.parents:
            return place
    return None


def _lend_figures(run: RunData, runs: Sequence[RunData]) -> None:
    """Between a run and its parent where both are about the same network."""
    stage = run["metrics"].get("stage")
    if run["parent"] is None or stage not in SAME_NETWORK:
        return
    parent = runs[run["parent"]]
    if stage in ABOUT_THEIR_PARENT:
        for key, value in run["metrics"].items():
            if number(value) is not None:
                parent["metrics"].setdefault(key, value)
    elif "val" in accuracies(parent):
        run["metrics"].setdefault("val_top1", accuracies(parent)["val"])


def _changes(run: RunData, runs: Sequence[RunData]) -> dict[str, Any]:
    split = run["metrics"].get("split", "test")
    own = accuracies(run).get(split)
    for place in ancestors(run, runs):
        theirs = accuracies(runs[place]).get(split)
        if own is not None and theirs is not None and same_images(run, runs[place], split):
            return {
                "against": place,
                "top1_change": own - theirs,
                "times_smaller": _times_smaller(run, runs[place]),
            }
    return {"against": None, "top1_change": None, "times_smaller": None}


def _times_smaller(run: RunData, ancestor: RunData) -> float | None:
    own = number(run["metrics"].get("storage_bytes"))
    theirs = number(ancestor["metrics"].get("storage_bytes"))
    if not own or not theirs:
        return None
    return theirs / own
