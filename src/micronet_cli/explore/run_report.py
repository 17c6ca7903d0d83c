"""One self-contained HTML page about many runs.

Everything that comes from files reaches the page as JSON and is shown as text; the page itself may load nothing.
"""

import glob
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any

from micronet_cli.errors import UserError
from micronet_cli.explore.benchmarks import benchmarks
from micronet_cli.explore.lineage import RunData, trace_lineage
from micronet_cli.explore.run_files import read_run

PAGE = Path(__file__).parent / "report_page"
LEFT_OUT = "previous"


@dataclass
class Found:
    """What the page shows.

    Attributes:
        runs: one mapping a run: ``name metrics overrides config history layers sensitivity``, its lineage and its
            benchmark.
        benchmarks: what can be compared, see ``explore.benchmarks``.
        refused: runs that ended before they began: ``name overrides reason``.
        problems: file -> why it could not be read.
    """

    runs: list[RunData] = field(default_factory=list)
    benchmarks: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
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
    shown = []
    for directory in directories:
        run = read_run(directory, found.problems)
        if run is None or run["metrics"].get("stage") == "report":
            continue
        run["name"] = _name(directory, root)
        if run.pop("began"):
            found.runs.append(run)
            shown.append(directory.absolute())
        else:
            found.refused.append(_refusal(run))
    trace_lineage(found.runs, shown)
    found.benchmarks = benchmarks(found.runs)
    return found


def html(found: Found, pattern: str) -> str:
    """The page."""
    from plotly.offline import get_plotlyjs

    data = {
        "pattern": pattern,
        "created": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "runs": found.runs,
        "benchmarks": found.benchmarks,
        "refused": found.refused,
        "problems": found.problems,
    }
    text = json.dumps(_finite(data), separators=(",", ":"))
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


def _refusal(run: Mapping[str, Any]) -> dict[str, Any]:
    """A command that ended before it began: a mistake in it, most of the time."""
    return {
        "name": run["name"],
        "overrides": run["overrides"],
        "reason": run["metrics"].get("reason", ""),
    }


def _finite(node: Any) -> Any:
    """A copy that JSON can hold: NaN and infinities become null."""
    if isinstance(node, dict):
        return {str(key): _finite(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_finite(value) for value in node]
    if isinstance(node, float) and not math.isfinite(node):
        return None
    return node
