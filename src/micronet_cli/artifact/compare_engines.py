"""Exported files in every engine beside the network that they were made of, layer by layer.

Every layer is fed with the integers that the network itself has before it, so that a layer answers for itself alone;
logits are compared end to end as well.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from micronet_cli.artifact.compare import BATCH, watched
from micronet_cli.artifact.engines.onnxruntime import session_options
from micronet_cli.artifact.engines.openvino import OpenVino, compiled
from micronet_cli.artifact.onnx import INPUT, OUTPUT
from micronet_cli.artifact.onnx_compare import Run, cut_file
from micronet_cli.layers.held_codes import in_precision


@dataclass
class Agreement:
    """How far the numbers of one place lie apart.

    Attributes:
        values: compared.
        far_values: more than one apart: of codes, more than one step.
        signal, error: sums of squares.
    """

    values: int = 0
    far_values: int = 0
    signal: float = 0.0
    error: float = 0.0

    def add(self, ours: Tensor, theirs: Tensor) -> None:
        """Count ``theirs`` beside ``ours``, of the same shape."""
        expected = ours.double()
        difference = theirs.double() - expected
        is_far = difference.abs() > 1
        self.values += difference.numel()
        self.far_values += int(is_far.sum())
        self.signal += float(expected.square().sum())
        self.error += float(difference.square().sum())

    @property
    def snr_db(self) -> float | None:
        """Signal over error in dB; None where nothing differs."""
        if self.error == 0:
            return None
        tiny = np.finfo(np.float64).tiny
        signal = max(self.signal, tiny)  # a signal may be 0
        return 10 * math.log10(signal / self.error)

    @property
    def within_one_step(self) -> float:
        """Share of the values, in [0, 1]."""
        values = max(self.values, 1)
        return 1 - self.far_values / values


@dataclass
class EngineReport:
    """What an engine makes of a file.

    Attributes:
        logits: end to end.
        layers: quantiser -> its codes, where every layer is fed with the network's own.
    """

    logits: Agreement = field(default_factory=Agreement)
    layers: dict[str, Agreement] = field(default_factory=dict)

    def add_codes(self, module: str, ours: Tensor, theirs: Tensor) -> None:
        """Count one call of a quantiser."""
        layer = self.layers.setdefault(module, Agreement())
        layer.add(ours, theirs)

    @property
    def worst_layer(self) -> str | None:
        """The layer with most codes off by more than one step; of equal ones that with least signal over error."""

        def badness(module: str) -> tuple[float, float]:
            layer = self.layers[module]
            ratio = layer.snr_db
            if ratio is None:
                ratio = math.inf
            return layer.within_one_step, ratio

        return min(self.layers, key=badness, default=None)

    def as_json(self) -> dict[str, Any]:
        """Plain values; ``snr_db`` null: no difference."""
        layers = {}
        for module, layer in self.layers.items():
            layers[module] = {
                "snr_db": layer.snr_db,
                "codes_within_one_step": layer.within_one_step,
            }
        return {
            "logits_snr_db": self.logits.snr_db,
            "worst_layer": self.worst_layer,
            "layers": layers,
        }

    def row(self) -> dict[str, str]:
        """A line of a table."""
        line = {"logits dB": _decibels(self.logits)}
        name = self.worst_layer
        if name is not None:
            layer = self.layers[name]
            percent_off = 100 * (1 - layer.within_one_step)
            line["worst layer"] = name.removesuffix(".input_fake_quantize")
            line["its dB"] = _decibels(layer)
            line["codes off by more than a step"] = f"{percent_off:.3f} %"
        return line


def _decibels(agreement: Agreement) -> str:
    ratio = agreement.snr_db
    return "equal" if ratio is None else f"{ratio:.1f}"


def rounding_report(model: nn.Module, images: Tensor) -> EngineReport:
    """The network in double precision beside itself in single precision.

    What any engine that computes in single precision may differ by, end to end: where it rounds otherwise, codes on
    ties fall to the other side and take those behind them along.
    """
    exact = in_precision(model, torch.float64)
    return _report(model, exact, images, torch.float64)


def packed_report(source: nn.Module, packed: nn.Module, images: Tensor) -> EngineReport:
    """The packed file's runtime beside the network, both in single precision.

    Args:
        source: the network, in evaluation mode.
        packed: what was read from its packed file.
        images: ``[N, C, H, W]``, normalised for the network.
    """
    single = in_precision(packed, torch.float32)
    return _report(source, single, images, torch.float32)


@torch.no_grad()
def _report(source: nn.Module, other: nn.Module, images: Tensor, precision: torch.dtype) -> EngineReport:
    """A network of this precision beside the source: each quantiser fed with the source's integers, then end to end."""
    report = EngineReport()
    for part in images.split(BATCH):
        converted = part.to(precision)
        with watched(source, {}) as ours:
            logits = source(part)
        with watched(other, ours) as theirs:
            other(converted)
        for module, our_calls in ours.items():
            calls = zip(our_calls, theirs[module], strict=True)
            for our_codes, their_codes in calls:
                report.add_codes(module, our_codes, their_codes)
        report.logits.add(logits, other(converted))
    return report


@torch.no_grad()
def onnx_reports(path: Path, model: nn.Module, images: Tensor, by_layer: bool = True) -> dict[str, EngineReport]:
    """Engine -> what it makes of an ONNX file: onnxruntime at every level of optimisation, and what else is installed.

    Args:
        path: the file.
        model: what it was made of, in evaluation mode.
        images: ``[N, C, H, W]``, normalised for the network.
        by_layer: the file has the network's own quantisers, each of which is compared.
    """
    parts = images.split(BATCH)
    expected = []
    codes = []
    for part in parts:
        with watched(model, {}) as own_codes:
            logits = model(part)
        expected.append(logits)
        codes.append(own_codes)
    reports = {}
    for name, open_file in openers().items():
        run = open_file(path)
        report = EngineReport()
        for part, logits in zip(parts, expected, strict=True):
            found = run({INPUT: part.numpy()})
            their_logits = torch.from_numpy(found[OUTPUT])
            report.logits.add(logits, their_logits)
        reports[name] = report
    if not by_layer:
        return reports
    with cut_file(path, model, images) as (file, cuts):
        for name, open_file in openers().items():
            run = open_file(file)
            for part, own_codes in zip(parts, codes, strict=True):
                fed = {cut.given: cut.fed(own_codes) for cut in cuts}
                found = run({INPUT: part.numpy()} | fed)
                for cut in cuts:
                    theirs = cut.codes_of(found[cut.output])
                    reports[name].add_codes(cut.module, cut.codes_in(own_codes), theirs)
    return reports


def openers() -> Mapping[str, Callable[[Path], Run]]:
    """The engines that are installed, by name, and for each what opens a file with any inputs and outputs."""
    import onnxruntime

    found: dict[str, Callable[[Path], Run]] = {}
    levels = onnxruntime.GraphOptimizationLevel.__members__
    for name, level in levels.items():
        short = name.removeprefix("ORT_").removeprefix("ENABLE_")
        label = short.lower()
        found[f"onnxruntime {label}"] = partial(_onnxruntime, level)
    if OpenVino().installed():
        found["openvino"] = _openvino
    return found


def _onnxruntime(level: Any, path: Path) -> Run:
    import onnxruntime

    options = session_options(torch.get_num_threads())
    options.graph_optimization_level = level
    providers = ["CPUExecutionProvider"]
    opened = onnxruntime.InferenceSession(str(path), options, providers=providers)
    names = [output.name for output in opened.get_outputs()]

    def run(feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        values = opened.run(names, dict(feeds))
        return dict(zip(names, values, strict=True))

    return run


def _openvino(path: Path) -> Run:
    opened = compiled(path, torch.get_num_threads())

    def run(feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        values = opened(dict(feeds))
        by_name = {}
        for output in opened.outputs:
            for name in output.get_names():
                by_name[name] = values[output]
        return by_name

    return run
