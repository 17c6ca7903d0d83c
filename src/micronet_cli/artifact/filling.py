"""A network's tensors from the streams of a file, one entry of the header after another."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from micronet_cli.artifact.entries import Activation, Layer, Parameter, check, is_names
from micronet_cli.artifact.stored_weights import integers_of, unpack_positions
from micronet_cli.artifact.streams import Streams
from micronet_cli.functional.fixed_point import unpack_range
from micronet_cli.layers.effective_weight import attach_mask
from micronet_cli.layers.fake_quantize import attach_input_fake_quantize, attach_output_fake_quantize
from micronet_cli.layers.integer import IntegerActivation, IntegerWeight, Numbers, attach_integers, attach_rescale
from micronet_cli.layers.plain_product import runs_linear
from micronet_cli.torch_internals import BatchNorm

RANGE_BYTES = 8  # of an activation quantiser


def fill_layer(layer: nn.Module, entry: Layer, streams: Streams) -> set[str]:
    """Read a layer's weight and rescale; the state's names that this fills.

    Raises:
        Damaged: the entry does not fit the layer, or a number is not finite.
        ValueError: bytes that no packer makes.
    """
    where = f"layer {entry.name!r:.80}"
    channels = layer.weight.shape[0]
    check(not entry.rescaled or runs_linear(layer), f"{where} cannot be rescaled")
    check(entry.scales in (0, 1, channels), f"{where}: scales do not fit its channels")
    check(entry.bits is None or entry.scales > 0, f"{where}: codes without scale")
    if entry.bits is None:
        scale, bias = _fill_floats(layer, entry, streams)
    else:
        scale, bias = _fill_integers(layer, entry, entry.bits, streams)
    filled = {f"{entry.name}.weight"}
    if entry.rescaled:
        assert scale is not None
        attach_rescale(layer, scale, bias)
        filled.add(f"{entry.name}.bias")
    return filled


def _cover(layer: nn.Module, entry: Layer, streams: Streams) -> np.ndarray:
    """The elements whose values are stored, bool of the weight's shape."""
    whole_bytes = "masks" in streams.coded
    shape = tuple(layer.weight.shape)
    return unpack_positions(entry.positions, shape, streams["masks"], whole_bytes)


def _fill_floats(layer: nn.Module, entry: Layer, streams: Streams) -> tuple[Numbers | None, Numbers | None]:
    """Read a float weight; the scales and bias behind it."""
    cover = torch.from_numpy(_cover(layer, entry, streams))
    values = torch.zeros(tuple(layer.weight.shape))
    values[cover] = streams.array("parameters", int(cover.sum()), "<f4")
    check(_is_finite(values), f"layer {entry.name!r:.80}: not finite")
    numbers = _scale_and_bias(layer, entry, streams)
    layer.weight.data.copy_(values)
    if entry.masked:
        attach_mask(layer).mask = values != 0
    return numbers


def _fill_integers(
    layer: nn.Module, entry: Layer, bits: float, streams: Streams
) -> tuple[Numbers | None, Numbers | None]:
    """Read integer weights; the scales and bias behind them."""
    cover = _cover(layer, entry, streams)
    digits = streams.digits("codes", int(cover.sum()), entry.base)
    if entry.zero_code is None:
        ranges = 1 if entry.per_tensor else layer.weight.shape[0]
        zero_codes = streams.digits("offsets", ranges, entry.levels)
    else:
        zero_codes = np.array([entry.zero_code])
    integers = integers_of(digits, entry, cover, zero_codes)
    weight = torch.from_numpy(integers).float()
    scale, bias = _scale_and_bias(layer, entry, streams)

    quantizer = IntegerWeight(
        bits,
        granularity="per_tensor" if entry.per_tensor else "per_channel",
        symmetric=entry.zero_code is not None,
        step=None if entry.integer else scale,
    )
    attach_integers(layer, weight, quantizer, entry.masked)
    return scale, bias


def _scale_and_bias(layer: nn.Module, entry: Layer, streams: Streams) -> tuple[Numbers | None, Numbers | None]:
    """The layer's scales and bias."""
    scale = None
    if entry.scales:
        scale = _numbers(entry, entry.scales, entry.scale_exponent, streams)
    bias = None
    if entry.bias_exponent is not None:
        bias = _numbers(entry, layer.weight.shape[0], entry.bias_exponent, streams)
    return scale, bias


def _numbers(entry: Layer, count: int, exponent: int | None, streams: Streams) -> Numbers:
    if exponent is not None:
        unit = float(np.ldexp(1.0, exponent))
        return Numbers(streams.array("scales", count, "<i4"), unit)
    values = streams.array("scales", count, "<f4")
    check(_is_finite(values), f"layer {entry.name!r:.80}: not finite")
    return Numbers(values)


def fill_batch_norms(modules: Mapping[str, nn.Module], names: Any, streams: Streams) -> set[str]:
    """Read the gain and shift of BatchNorms that stay; the state's names that this fills.

    Raises:
        Damaged: the network has no such BatchNorm, or a number is not finite.
    """
    check(is_names(names), "batch_norms: must be a list of names")
    filled: set[str] = set()
    for name in names:
        norm = modules.get(name)
        check(isinstance(norm, BatchNorm) and norm.running_mean is not None, f"batch_norms: {name!r:.80} is none")
        assert isinstance(norm, BatchNorm)
        numbers = streams.array("scales", 2 * norm.num_features, "<f4")
        check(_is_finite(numbers), f"batch_norms: {name!r:.80} is not finite")
        gain, shift = numbers.chunk(2)
        norm.weight = nn.Parameter(gain)
        norm.bias = nn.Parameter(shift)
        norm.eps = 0.0
        norm.reset_running_stats()  # mean 0 and variance 1
        filled.update(f"{name}.{key}" for key in ("weight", "bias", "running_mean", "running_var"))
    return filled


def fill_parameters(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    entries: list[Parameter],
    filled: set[str],
    streams: Streams,
) -> None:
    """Read every other tensor, and add it to ``filled``; nothing of the network's state may be left out.

    Raises:
        Damaged: names, shapes or types do not fit the network, a number is not finite, or a tensor is missing.
    """
    state = dict(model.state_dict(keep_vars=True))
    for entry in entries:
        where = f"parameter {entry.name!r:.80}"
        dtype = np.dtype(entry.dtype).str
        shape = tuple(entry.shape)
        values = streams.array("parameters", prod(shape), dtype).reshape(shape)
        check(_is_finite(values), f"{where}: not finite")
        owner, _, last = entry.name.rpartition(".")
        module = modules.get(owner)
        if entry.name not in state and last == "bias" and module is not None and _may_have_bias(module):
            check(shape == (module.weight.shape[0],), f"{where}: another shape than the network's")
            module.bias = nn.Parameter(values)  # of a BatchNorm that was folded before training
        else:
            own = state.get(entry.name)
            check(own is not None and entry.name not in filled, f"{where}: the network has none of this name")
            assert isinstance(own, Tensor)
            check(own.shape == values.shape and own.dtype == values.dtype, f"{where}: another shape or type")
            own.data.copy_(values)
        filled.add(entry.name)
    _check_complete(state, filled)


def _check_complete(state: Mapping[str, Any], filled: set[str]) -> None:
    missing = []
    for name in state:
        counts_batches = name.endswith("num_batches_tracked")
        if name not in filled and not counts_batches and not _is_of_a_filled_layer(name):
            missing.append(name)
    check(not missing, f"{len(missing)} tensors of the network are missing, {', '.join(missing[:3])} among them")


def _is_finite(values: Tensor) -> bool:
    return not values.is_floating_point() or bool(torch.isfinite(values).all())


def _may_have_bias(module: nn.Module) -> bool:
    return runs_linear(module) and module.bias is None and not hasattr(module, "rescale")


def _is_of_a_filled_layer(name: str) -> bool:
    """Whether a state's name is one that reading a layer made."""
    return ".parametrizations.weight." in f".{name}" or ".rescale." in f".{name}"


def attach_range(modules: Mapping[str, nn.Module], entry: Activation, streams: Streams) -> None:
    """Read an activation quantiser and put it in its place.

    Raises:
        Damaged: the network has no such module, or the range does not hold 0.
    """
    where = f"activations: {entry.module!r:.80}"
    module = modules.get(entry.module)
    check(module is not None, f"{where}: the network has no such module")
    assert module is not None
    scale, zero_point = unpack_range(streams["activations"].take(RANGE_BYTES))
    quantizer = IntegerActivation(entry.bits, scale, zero_point)
    holds_zero = -quantizer.zero_point < quantizer.levels
    check(np.isfinite(scale) and scale > 0 and holds_zero, f"{where}: a bad range")
    if entry.place == "input":
        attach_input_fake_quantize(module, quantizer)
    else:
        attach_output_fake_quantize(module, quantizer)
