"""What the report shows of one run's directory: each of its files may be absent, wrong or cut short."""

import csv
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from micronet_cli.explore.sensitivity import table
from micronet_cli.renamed import with_new_names

POINTS = 300  # of a curve, at most
DIGITS = 6  # significant, of curves and layers
LAYER_FIGURES = ("storage_params", "math_ops", "sparsity")
ONNX_FILES = {"model.onnx": "onnx_bytes", "model.int8.onnx": "int8_bytes"}
NOT_CURVES = {"kind", "step", "epoch"}
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError)

Problems = dict[str, str]  # file -> why it could not be read
Curve = dict[str, list[float]]  # its steps and values


def read_run(directory: Path, problems: Problems) -> dict[str, Any] | None:
    """``overrides metrics config history layers sensitivity began`` of a run; None without its metrics.json.

    Any other file that cannot be read is noted and left out. ``began`` is False of a run that failed and left nothing.
    """
    metrics = _read(directory / "metrics.json", _metrics, problems)
    if not metrics:
        return None
    overrides = [str(override) for override in metrics.pop("overrides", None) or []]
    config = _read(directory / "config.yaml", _config, problems)
    history = _read(directory / "history.jsonl", _history, problems)
    layers = _read(directory / "layers.csv", _layers, problems)
    sizes = _read(directory / "export.json", _sizes, problems)
    sensitivity = _read(directory / "sensitivity.csv", _sensitivity, problems)
    left_something = history or layers or (directory / "checkpoints").exists()
    return {
        "overrides": overrides,
        "metrics": (sizes or {}) | _plain(metrics),
        "config": config or _typed(overrides),
        "history": history or {},
        "layers": layers or [],
        "sensitivity": sensitivity or [],
        "began": metrics.get("status") != "failed" or bool(left_something),
    }


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(found):
        return None
    return found


def _read(path: Path, parse: Callable[[str], Any], problems: Problems) -> Any:
    """What ``parse`` makes of a file; None where it is absent, or wrong, which is noted."""
    try:
        text = path.read_text()
        return parse(text)
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        on_one_line = " ".join(str(error).split())
        problems[str(path)] = on_one_line or type(error).__name__
        return None


def _metrics(text: str) -> dict[str, Any]:
    metrics = json.loads(text)
    if not isinstance(metrics, dict):
        raise ValueError("must be a mapping")
    overrides = metrics.get("overrides") or []
    if not isinstance(overrides, list):
        raise ValueError("overrides: must be a list")
    return metrics


def _plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is no single figure, as the versions of packages are."""
    return {key: value for key, value in metrics.items() if not isinstance(value, dict | list)}


def _config(text: str) -> dict[str, Any]:
    """Dotted key -> value, so that runs of different versions do not differ by renamed paths alone."""
    config = yaml.safe_load(text) or {}
    return dict(_flat(with_new_names(config)))


def _flat(node: Any, where: str = "") -> Iterable[tuple[str, Any]]:
    """``{"a": {"b": 1}}`` as ``a.b``, 1; an empty group, as ``prune=none`` is, as null."""
    if node == {}:
        yield where, None
    elif isinstance(node, dict):
        for key, value in node.items():
            path = f"{where}.{key}" if where else str(key)
            yield from _flat(value, path)
    elif isinstance(node, list):
        yield where, json.dumps(node)
    else:
        yield where, node


def _typed(overrides: Iterable[str]) -> dict[str, str]:
    """What was typed, where there is no config to be had."""
    typed = {}
    for override in overrides:
        key, _, value = override.partition("=")
        typed[key] = value
    return with_new_names(typed)


def _history(text: str) -> dict[str, Curve]:
    """Quantity, as ``epoch val_top1`` -> its curve; a line cut short by a crash is left out."""
    curves: dict[str, Curve] = defaultdict(lambda: {"step": [], "value": []})
    for line in text.splitlines():
        try:
            point = json.loads(line)
        except json.JSONDecodeError:
            continue
        for key in point.keys() - NOT_CURVES:
            value = _short(point[key])
            if value is None:
                continue
            curve = curves[f"{point['kind']} {key}"]
            curve["step"].append(int(point["step"]))
            curve["value"].append(value)
    thinned = {}
    for quantity in sorted(curves):
        curve = curves[quantity]
        thinned[quantity] = {axis: _thin(values) for axis, values in curve.items()}
    return thinned


def _layers(text: str) -> list[list[Any]]:
    """Rows ``layer, storage parameters, operations, sparsity, weight bits, input bits``; None where one is missing."""
    rows = []
    for line in csv.DictReader(text.splitlines()):
        row: list[Any] = [line["layer"]]
        for figure in LAYER_FIGURES:
            row.append(_short(line.get(figure)))
        row += _weight_and_input_bits(line.get("bits"))
        rows.append(row)
    return rows


def _weight_and_input_bits(text: str | None) -> list[int | None]:
    """``4x32`` as 4 and 32; a layer without weights has no such pair."""
    pair = re.match(r"(\d+)x(\d+)", text or "")
    if pair is None:
        return [None, None]
    return [int(bits) for bits in pair.groups()]


def _sizes(text: str) -> dict[str, int]:
    """``onnx_bytes`` and ``int8_bytes``, where those files were written."""
    written = json.loads(text).get("onnx") or {}
    found = {}
    for name, key in ONNX_FILES.items():
        if name in written:
            found[key] = written[name]["bytes"]
    return found


def _sensitivity(text: str) -> list[dict[str, Any]]:
    """The table of divergences: a row a layer, a column a point."""
    rows = []
    for line in csv.DictReader(text.splitlines()):
        row: dict[str, Any] = {"layer": line["layer"], "kind": line["kind"]}
        for figure in ("value", "divergence"):
            row[figure] = float(line[figure])
        rows.append(row)
    return table(rows)


def _short(value: Any) -> float | None:
    """A finite number with fewer digits, or None."""
    found = number(value)
    if found is None:
        return None
    return float(f"{found:.{DIGITS}g}")


def _thin(values: list[float]) -> list[float]:
    """At most POINTS of them and the last."""
    every = math.ceil(len(values) / POINTS)
    step = max(1, every)
    return values[:-1:step] + values[-1:]
