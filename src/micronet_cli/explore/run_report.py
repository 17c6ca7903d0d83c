"""One self-contained HTML page about many runs.

Everything that comes from files reaches the page as JSON and is shown as text; the page itself may load nothing.
"""

import csv
import glob
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any

import yaml

from micronet_cli.errors import UserError
from micronet_cli.functional.pareto import pareto_front
from micronet_cli.renamed import with_new_names
from micronet_cli.strict_json import finite

PAGE = Path(__file__).parent / "report_page"
LEFT_OUT = "previous"
POINTS = 300  # of a curve, at most
DIGITS = 6  # significant, of curves and layers


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
    fixed = len(Path(re.split(r"[*?[]", pattern)[0]).parts)
    matches = (Path(match) for match in glob.iglob(pattern, recursive=True))
    found = {run for match in matches if LEFT_OUT not in match.parts[fixed:] for run in _below(match)}
    if not found:
        raise UserError(f"runs={pattern!r}: no metrics.json there; give the pattern of run directories, in quotes")
    return sorted(found, key=lambda path: _natural(str(path)))


def read_runs(directories: Sequence[Path]) -> Found:
    """Read them; a file that cannot be read is noted, and its run shown without it or, for metrics.json, left out."""
    found = Found()
    root = os.path.commonpath([path.absolute() for path in directories])
    for directory in directories:
        metrics = _read(found, directory / "metrics.json", _metrics)
        if metrics and metrics.get("stage") != "report":
            name = os.path.relpath(directory.absolute(), root)
            found.runs.append(_run(found, directory, Path(root).name if name == "." else name, metrics))
    for group in _by_benchmark(found.runs).values():
        front = pareto_front(*([run["metrics"][key] for run in group] for key in ("micronet_score", "top1")))
        for run, on_front in zip(group, front, strict=True):
            run["front"] = on_front
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
    parts = {path.stem: path.read_text() for path in PAGE.glob("[!.]*.*")}
    return Template(parts.pop("page")).substitute(
        parts,
        plotly=get_plotlyjs(),
        # "<" may neither end the script element nor begin a comment in it.
        data=json.dumps(finite(data), separators=(",", ":")).replace("<", "\\u003c"),
    )


def _below(match: Path) -> Iterable[Path]:
    if match.name == "metrics.json":
        yield match.parent
    for directory, folders, files in os.walk(match):
        folders[:] = [name for name in folders if name != LEFT_OUT and not name.startswith(".")]
        if "metrics.json" in files:
            yield Path(directory)


def _natural(text: str) -> list[Any]:
    """Sort key that puts ``sweep/10`` after ``sweep/9``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def _read(found: Found, path: Path, parse: Any) -> Any:
    """What ``parse`` makes of a file; None where it is absent, or wrong, which is noted."""
    try:
        return parse(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        found.problems[str(path)] = " ".join(str(error).split()) or type(error).__name__
        return None


def _metrics(text: str) -> dict[str, Any]:
    metrics = json.loads(text)
    if not isinstance(metrics, dict):
        raise ValueError("must be a mapping")
    if not isinstance(metrics.get("overrides") or [], list):
        raise ValueError("overrides: must be a list")
    return metrics


def _run(found: Found, directory: Path, name: str, metrics: dict[str, Any]) -> dict[str, Any]:
    overrides = [str(override) for override in metrics.pop("overrides", None) or []]
    config = _read(found, directory / "config.yaml", _config)
    typed = {}
    for override in overrides:
        key, _, value = override.partition("=")
        typed[key] = value
    return {
        "name": name,
        "overrides": overrides,
        "metrics": {key: value for key, value in metrics.items() if not isinstance(value, dict | list)},
        "config": config or with_new_names(typed),
        "history": _read(found, directory / "history.jsonl", _history) or {},
        "layers": _read(found, directory / "layers.csv", _layers) or [],
        "benchmark": _benchmark(config or {}, metrics),
        "front": False,
    }


def _config(text: str) -> dict[str, Any]:
    """Dotted key -> value, so that runs of different versions do not differ by renamed paths alone."""
    return dict(_flat(with_new_names(yaml.safe_load(text) or {})))


def _flat(node: Any, where: str = "") -> Iterable[tuple[str, Any]]:
    """``{"a": {"b": 1}}`` as ``a.b``, 1; an empty group, as ``prune=none`` is, as null."""
    if node == {}:
        yield where, None
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _flat(value, f"{where}.{key}" if where else str(key))
    else:
        yield where, json.dumps(node) if isinstance(node, list) else node


def _history(text: str) -> dict[str, dict[str, list[float]]]:
    """Quantity, as ``epoch val_top1`` -> its steps and values; a line cut short by a crash is left out."""
    curves: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"step": [], "value": []})
    for line in text.splitlines():
        try:
            point = json.loads(line)
        except json.JSONDecodeError:
            continue
        for key in point.keys() - {"kind", "step", "epoch"}:
            if (value := _short(point[key])) is not None:
                curve = curves[f"{point['kind']} {key}"]
                curve["step"].append(int(point["step"]))
                curve["value"].append(value)
    return {key: {axis: _thin(values) for axis, values in curves[key].items()} for key in sorted(curves)}


def _layers(text: str) -> list[list[Any]]:
    """Rows ``layer, storage parameters, operations, sparsity, weight bits, input bits``; None where one is missing."""
    rows = []
    for row in csv.DictReader(text.splitlines()):
        bits = re.match(r"(\d+)x(\d+)", row.get("bits") or "")
        numbers = [_number(row.get(key)) for key in ("storage_params", "math_ops", "sparsity")]
        weight_input = [int(b) for b in bits.groups()] if bits else [None, None]
        rows.append([row["layer"], *(_short(n) for n in numbers), *weight_input])
    return rows


def _benchmark(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str | None:
    """What a run was measured on; only runs with the same can be on one front. None without accuracy or score."""
    needed = [metrics.get(key) for key in ("top1", "micronet_score")]
    if metrics.get("status") != "completed" or any(isinstance(v, str) or _number(v) is None for v in needed):
        return None
    data = str(config.get("data._target_", "data")).rpartition(".")[2]
    which = next((config[key] for key in ("data.variant", "data.test", "data.dataset") if config.get(key)), "")
    params, score = _number(metrics.get("storage_params")), _number(metrics.get("storage_score"))
    base = f", base {params / score / 1e6:.3g} M" if params and score else ""
    where = f"{data} {Path(str(which)).name}".strip()
    return f"{where}, {metrics.get('split', 'test')}; {metrics.get('score_profile', 'score')}{base}"


def _by_benchmark(runs: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        if run["benchmark"]:
            groups[run["benchmark"]].append(run)
    return groups


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None


def _short(value: Any) -> float | None:
    number = _number(value)
    return None if number is None else float(f"{number:.{DIGITS}g}")


def _thin(values: list[Any]) -> list[Any]:
    """At most POINTS of them and the last."""
    every = max(1, math.ceil(len(values) / POINTS))
    return values[:-1:every] + values[-1:]
