"""One self-contained HTML page about many runs.

Everything that comes from files reaches the page as JSON and is shown as text; the page itself may load nothing.
"""

import glob
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any

from micronet_cli.errors import UserError
from micronet_cli.explore.run_files import number, read_run
from micronet_cli.functional.pareto import pareto_front
from micronet_cli.strict_json import finite

PAGE = Path(__file__).parent / "report_page"
LEFT_OUT = "previous"
WHICH_DATA = ("data.variant", "data.test", "data.dataset")  # keys that tell data sets of one class apart


@dataclass
class Found:
    """What the page shows.

    Attributes:
        runs: one mapping a run: ``name metrics overrides config history layers benchmark front``.
        problems: file -> why it could not be read.
    """

    runs: list[dict[str, Any]] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)


def find_runs(pattern: str) -> list[Path]:
    """Directories with a metrics.json that ``pattern`` matches or that lie below a match, in natural order.

    Earlier runs in ``previous/`` and hidden directories are left out.

    Raises:
        UserError: there are none.
    """
    pattern = os.path.expanduser(pattern)
    fixed, *_ = re.split(r"[*?[]", pattern)
    # A directory called previous may be asked for by its own name.
    parts_given = len(Path(fixed).parts)
    found: set[Path] = set()
    for name in glob.iglob(pattern, recursive=True):
        match = Path(name)
        if LEFT_OUT not in match.parts[parts_given:]:
            found.update(_below(match))
    if not found:
        raise UserError(f"runs={pattern!r}: no metrics.json there; give the pattern of run directories, in quotes")
    return sorted(found, key=_natural)


def read_runs(directories: Sequence[Path]) -> Found:
    """Read them; a file that cannot be read is noted, and its run shown without it or, for metrics.json, left out."""
    found = Found()
    root = os.path.commonpath([path.absolute() for path in directories])
    for directory in directories:
        run = read_run(directory, found.problems)
        if run is None or run["metrics"].get("stage") == "report":
            continue
        run["name"] = _name(directory, root)
        run["benchmark"] = _benchmark(run["config"], run["metrics"])
        run["front"] = False
        found.runs.append(run)
    _mark_fronts(found.runs)
    return found


def html(found: Found, pattern: str) -> str:
    """The page."""
    from plotly.offline import get_plotlyjs

    data = {
        "pattern": pattern,
        "created": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "runs": found.runs,
        "problems": found.problems,
    }
    text = json.dumps(finite(data), separators=(",", ":"))
    # "<" may neither end the script element nor begin a comment in it.
    safe = text.replace("<", "\\u003c")
    parts = {path.stem: path.read_text() for path in PAGE.glob("[!.]*.*")}
    page = Template(parts.pop("page"))
    return page.substitute(parts, plotly=get_plotlyjs(), data=safe)


def _below(match: Path) -> Iterable[Path]:
    """The run directories at and below a match."""
    if match.name == "metrics.json":
        yield match.parent
    for directory, folders, files in os.walk(match):
        folders[:] = [name for name in folders if _is_looked_into(name)]
        if "metrics.json" in files:
            yield Path(directory)


def _is_looked_into(folder: str) -> bool:
    hidden = folder.startswith(".")
    return folder != LEFT_OUT and not hidden


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts ``sweep/10`` after ``sweep/9``."""
    key = []
    for part in re.split(r"(\d+)", str(path)):
        if part.isdigit():
            key.append((int(part), ""))
        else:
            key.append((-1, part))
    return key


def _name(directory: Path, root: str) -> str:
    """Where it lies below the directory that holds all of them."""
    name = os.path.relpath(directory.absolute(), root)
    if name == ".":
        return Path(root).name
    return name


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


def _mark_fronts(runs: Iterable[dict[str, Any]]) -> None:
    """Note in each run whether it is on the Pareto front of its benchmark."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        if run["benchmark"]:
            groups[run["benchmark"]].append(run)
    for group in groups.values():
        scores = [run["metrics"]["micronet_score"] for run in group]
        accuracies = [run["metrics"]["top1"] for run in group]
        front = pareto_front(scores, accuracies)
        for run, on_front in zip(group, front, strict=True):
            run["front"] = on_front
