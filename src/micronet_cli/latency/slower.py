"""Why a compressed network is no faster than the dense one in the same engine, by the engine's own profiler."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from micronet_cli.artifact.engines.engine import Operation
from micronet_cli.latency.subjects import INT8_SUFFIX, Subject
from micronet_cli.layers.effective_weight import effective_weight, incoming_weight
from micronet_cli.layers.plain import activation_quantizers
from micronet_cli.layers.rules import compressible_layers

PROFILED_RUNS = 10
SHOWN = 4
NOTICEABLE = 0.02  # of the dense network's milliseconds
FEW_ZEROS = 0.1
BLOCK = 16  # channels of a vector in the float kernels of onnxruntime and OpenVINO
NOISE = 0.03  # of a ratio


@dataclass(frozen=True)
class Nature:
    """What is known of a compressed network.

    Attributes:
        has_codes: weights are quantised.
        has_quantizers: activations are.
        has_varied_zero_points: the weights of a grouped convolution have zero points that differ between channels.
        is_packed: it is the integer network of a packed file.
        zeros: fraction of its weights.
        has_fewer_channels: some were taken out.
        has_odd_widths: so that a layer has a number of channels that is no multiple of 16.
    """

    has_codes: bool = False
    has_quantizers: bool = False
    has_varied_zero_points: bool = False
    is_packed: bool = False
    zeros: float = 0.0
    has_fewer_channels: bool = False
    has_odd_widths: bool = False


def nature(model: nn.Module, is_packed: bool, has_fewer_channels: bool) -> Nature:
    """Of a live network."""
    layers = compressible_layers(model).values()
    zeros = 0
    elements = 0
    for layer in layers:
        weight = layer.weight.detach()
        zeros += int((weight == 0).sum())
        elements += weight.numel()
    return Nature(
        has_codes=is_packed or any(_has_codes(layer) for layer in layers),
        has_quantizers=bool(activation_quantizers(model)),
        has_varied_zero_points=any(_has_varied_zero_points(layer) for layer in layers),
        is_packed=is_packed,
        zeros=zeros / max(elements, 1),
        has_fewer_channels=has_fewer_channels,
        has_odd_widths=has_fewer_channels and any(getattr(layer, "out_channels", 0) % BLOCK for layer in layers),
    )


def _has_codes(layer: nn.Module) -> bool:
    effective = effective_weight(layer)
    return effective is not None and effective.fake_quantize is not None


@torch.no_grad()
def _has_varied_zero_points(layer: nn.Module) -> bool:
    if getattr(layer, "groups", 1) == 1 or not _has_codes(layer):
        return False
    effective = effective_weight(layer)
    assert effective is not None
    _, zero_point = effective.qparams(incoming_weight(layer))
    return bool((zero_point != zero_point.flatten()[0]).any())


def verdict(ratio: float) -> str:
    """``slower``, ``no faster`` or nothing of a network so many times as fast as the dense one in its engine."""
    if ratio < 1 - NOISE:
        return "slower"
    if ratio < 1 + NOISE:
        return "no faster"
    return ""


def profiles(subject: Subject, dense: Subject, images: np.ndarray, threads: int) -> list[str]:
    """What takes longer in it than in the dense network: operators, then layers where the engine knows them."""
    theirs = dense.engine.profile(dense.source, threads, images, PROFILED_RUNS)
    ours = subject.engine.profile(subject.source, threads, images, PROFILED_RUNS)
    before = sum(operation.milliseconds for operation in theirs)
    after = sum(operation.milliseconds for operation in ours)
    found = [f"all: {before:.2f} -> {after:.2f} ms"]
    if after < before:
        found[0] += ", which is faster: other work disturbed the rounds, or what is between operators takes the time"
    found.append(f"operators: {_changes(ours, theirs, lambda operation: operation.kind)}")
    if any("/" in operation.name for operation in ours):
        found.append(f"layers: {_changes(ours, theirs, _layer, only_slower=True)}")
    return found


def advice(subject: Subject, nature: Nature) -> list[str]:
    """What would help, as far as it is known."""
    engine = subject.engine.name
    found = []
    if not subject.file and nature.is_packed:
        found.append(
            f"{engine} computes a packed network's integers in float kernels, exactly; stage=export writes ONNX"
        )
    elif not subject.file and nature.has_quantizers:
        found.append(f"{engine} imitates quantisers in float; stage=export writes files with integers")
    elif nature.has_varied_zero_points and engine == "onnxruntime":
        found.append(
            "onnxruntime has no fast kernel for grouped convolutions whose weights have a zero point for each channel: "
            "weights symmetric around 0, as quantize=symmetric makes them, have one"
        )
    elif nature.has_codes and subject.file and not subject.file.endswith(INT8_SUFFIX):
        found.append(
            f"this file holds the codes of training in their own types, most of which {engine} has no fast kernels for "
            "or turns into floats in every run: export.int8=true writes a file for 8-bit kernels"
        )
    elif subject.file.endswith(INT8_SUFFIX):
        found.append("float files, where conversions to integers and back cost more than 8-bit products gain")
    if nature.zeros > FEW_ZEROS and not nature.has_fewer_channels:
        share = f"{100 * nature.zeros:.0f} %"
        found.append(
            f"the {share} of zeros inside its filters are multiplied like other numbers: prune=filter, then "
            "stage=shrink, takes whole channels out"
        )
    if nature.has_odd_widths:
        found.append("channels that are no multiple of 16 miss the blocked kernels: stage=shrink stage.multiple=16")
    return found


def _changes(
    ours: Sequence[Operation],
    theirs: Sequence[Operation],
    group: Callable[[Operation], str],
    only_slower: bool = False,
) -> str:
    """The groups whose milliseconds differ most from the dense network's."""
    after = _sums(ours, group)
    before = _sums(theirs, group)
    noticeable = NOTICEABLE * sum(before.values())
    changes = {name: after[name] - before[name] for name in [*after, *before]}
    told = []
    for name in sorted(changes, key=lambda name: abs(changes[name]), reverse=True):
        change = changes[name] if only_slower else abs(changes[name])
        if change > noticeable:
            told.append(f"{name} {before[name]:.2f} -> {after[name]:.2f} ms")
    return ", ".join(told[:SHOWN]) or "none differs noticeably"


def _sums(operations: Sequence[Operation], group: Callable[[Operation], str]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for operation in operations:
        sums[group(operation)] += operation.milliseconds
    return sums


def _layer(operation: Operation) -> str:
    """The module that a node's name begins with; a weight's parametrization belongs to its layer."""
    module, _, _ = operation.name.partition("/")
    layer, _, _ = module.partition(".parametrizations.")
    return layer or "(outside layers)"
