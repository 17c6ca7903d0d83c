"""A network's tensors from the streams of a file, one entry of the header after another."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from micronet_cli.artifact.entries import BATCH_NORM_TENSORS, Activation, Layer, Parameter, check
from micronet_cli.artifact.format import Damaged
from micronet_cli.artifact.own_state import own_state
from micronet_cli.artifact.stored_weights import integers_of, unpack_positions
from micronet_cli.artifact.streams import Streams
from micronet_cli.functional.fixed_point import unpack_range
from micronet_cli.layers.effective_weight import attach_mask
from micronet_cli.layers.fake_quantize import attach_input_fake_quantize, attach_output_fake_quantize
from micronet_cli.layers.finite import is_sound
from micronet_cli.layers.integer import IntegerActivation, IntegerWeight, Numbers, attach_integers, attach_rescale
from micronet_cli.layers.plain_product import runs_linear
from micronet_cli.layers.products import attach_operand_fake_quantize
from micronet_cli.torch_internals import BatchNorm

RANGE_BYTES = 8  # of an activation quantiser


@dataclass(frozen=True)
class Rescaling:
    """What a layer's sums are multiplied by, and what is added then, ``[C_out]`` each; None: nothing is stored."""

    scale: Numbers | None = None
    bias: Numbers | None = None


def fill_layer(layer: nn.Module, entry: Layer, streams: Streams) -> set[str]:
    """Read a layer's weight and rescale; the state's names that this fills.

    Raises:
        Damaged: the entry does not fit the layer, or a number is not finite.
        ValueError: bytes that no packer makes.
    """
    where = _where(entry)
    channels = layer.weight.shape[0]
    if entry.rescaled:
        check(runs_linear(layer), f"{where} cannot be rescaled")
    check(entry.scales in (0, 1, channels), f"{where}: scales do not fit its channels")
    if entry.bits is None:
        rescaling = _fill_floats(layer, entry, streams)
    else:
        check(entry.scales > 0, f"{where}: codes without scale")
        rescaling = _fill_integers(layer, entry, entry.bits, streams)
    filled = {f"{entry.name}.weight"}
    if entry.rescaled:
        assert rescaling.scale is not None
        attach_rescale(layer, rescaling.scale, rescaling.bias)
        filled.add(f"{entry.name}.bias")
    return filled


def _where(entry: Layer) -> str:
    return f"layer {entry.name!r:.80}"


def _cover(layer: nn.Module, entry: Layer, streams: Streams) -> np.ndarray:
    """The elements whose values are stored, bool of the weight's shape."""
    whole_bytes = "masks" in streams.coded
    shape = tuple(layer.weight.shape)
    return unpack_positions(entry.positions, shape, streams["masks"], whole_bytes)


def _fill_floats(layer: nn.Module, entry: Layer, streams: Streams) -> Rescaling:
    """Read a float weight; what is behind it."""
    cover = torch.from_numpy(_cover(layer, entry, streams))
    count = int(cover.sum())
    shape = tuple(layer.weight.shape)
    values = torch.zeros(shape)
    values[cover] = streams.array("parameters", count, "<f4")
    _check_finite(values, _where(entry))
    rescaling = _read_rescaling(layer, entry, streams)
    layer.weight.data.copy_(values)
    if entry.masked:
        attach_mask(layer).mask = values != 0
    return rescaling


def _fill_integers(layer: nn.Module, entry: Layer, bits: float, streams: Streams) -> Rescaling:
    """Read integer weights; what is behind them."""
    cover = _cover(layer, entry, streams)
    count = int(cover.sum())
    digits = streams.digits("codes", count, entry.base)
    zero_codes = _read_zero_codes(layer, entry, streams)
    integers = integers_of(digits, entry, cover, zero_codes)
    weight = torch.from_numpy(integers).float()
    rescaling = _read_rescaling(layer, entry, streams)

    quantizer = IntegerWeight(
        bits,
        granularity="per_tensor" if entry.per_tensor else "per_channel",
        symmetric=entry.zero_code is not None,
        step=None if entry.integer else rescaling.scale,
    )
    attach_integers(layer, weight, quantizer, entry.masked)
    return rescaling


def _read_zero_codes(layer: nn.Module, entry: Layer, streams: Streams) -> np.ndarray:
    """Code of 0 of each range, ``[C_out]`` or ``[1]``."""
    if entry.zero_code is not None:
        return np.array([entry.zero_code])
    ranges = layer.weight.shape[0]
    if entry.per_tensor:
        ranges = 1
    return streams.digits("offsets", ranges, entry.levels)


def _read_rescaling(layer: nn.Module, entry: Layer, streams: Streams) -> Rescaling:
    """The layer's scales and bias."""
    scale = None
    if entry.scales:
        scale = _numbers(entry, entry.scales, entry.scale_exponent, streams)
    bias = None
    if entry.bias_exponent is not None:
        channels = layer.weight.shape[0]
        bias = _numbers(entry, channels, entry.bias_exponent, streams)
    return Rescaling(scale, bias)


def _numbers(entry: Layer, count: int, exponent: int | None, streams: Streams) -> Numbers:
    if exponent is None:
        values = streams.array("scales", count, "<f4")
        _check_finite(values, _where(entry))
        return Numbers(values)
    unit = float(np.ldexp(1.0, exponent))
    integers = streams.array("scales", count, "<i4")
    return Numbers(integers, unit)


def _check_finite(values: Tensor, where: str) -> None:
    if values.is_floating_point():
        all_finite = bool(torch.isfinite(values).all())
        check(all_finite, f"{where}: not finite")


def fill_batch_norms(modules: Mapping[str, nn.Module], names: list[str], streams: Streams) -> set[str]:
    """Read the gain and shift of BatchNorms that stay; the state's names that this fills.

    Raises:
        Damaged: the network has no such BatchNorm, or a number is not finite.
    """
    filled: set[str] = set()
    for name in names:
        where = f"batch_norms: {name!r:.80}"
        norm = modules.get(name)
        if not isinstance(norm, BatchNorm) or norm.running_mean is None:
            raise Damaged(f"header: {where} is none")
        numbers = streams.array("scales", 2 * norm.num_features, "<f4")
        all_finite = bool(torch.isfinite(numbers).all())
        check(all_finite, f"{where} is not finite")
        gain, shift = numbers.chunk(2)
        norm.weight = nn.Parameter(gain)
        norm.bias = nn.Parameter(shift)
        norm.eps = 0.0
        norm.reset_running_stats()  # mean 0 and variance 1
        for key in BATCH_NORM_TENSORS:
            filled.add(f"{name}.{key}")
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
        values = _read_parameter(entry, streams)
        owner, _, last = entry.name.rpartition(".")
        module = modules.get(owner)
        own = state.get(entry.name)
        if own is None and last == "bias" and _may_have_bias(module):
            assert module is not None
            _check_finite(values, where)
            channels = module.weight.shape[0]
            check(values.shape == (channels,), f"{where}: another shape than the network's")
            module.bias = nn.Parameter(values)  # of a BatchNorm that was folded before training
        else:
            known = own is not None and entry.name not in filled
            check(known, f"{where}: the network has none of this name")
            assert isinstance(own, Tensor)
            same_kind = own.shape == values.shape and own.dtype == values.dtype
            check(same_kind, f"{where}: another shape or type")
            check(is_sound(entry.name, own, values), f"{where}: not finite")
            own.data.copy_(values)
        filled.add(entry.name)
    _check_complete(own_state(model), filled)


def _read_parameter(entry: Parameter, streams: Streams) -> Tensor:
    shape = tuple(entry.shape)
    dtype = np.dtype(entry.dtype).str
    values = streams.array("parameters", prod(shape), dtype)
    return values.reshape(shape)


def _check_complete(state: Mapping[str, Any], filled: set[str]) -> None:
    missing = []
    for name in state:
        if name in filled or _is_of_a_filled_layer(name):
            continue
        if name.endswith("num_batches_tracked"):
            continue
        missing.append(name)
    first_few = ", ".join(missing[:3])
    check(not missing, f"{len(missing)} tensors of the network are missing, {first_few} among them")


def _may_have_bias(module: nn.Module | None) -> bool:
    if module is None or not runs_linear(module):
        return False
    return module.bias is None and not hasattr(module, "rescale")


def _is_of_a_filled_layer(name: str) -> bool:
    """Whether a state's name is one that reading a layer made."""
    dotted = f".{name}"
    return ".parametrizations.weight." in dotted or ".rescale." in dotted


def attach_range(modules: Mapping[str, nn.Module], entry: Activation, streams: Streams) -> None:
    """Read an activation quantiser and put it in its place.

    Raises:
        Damaged: the network has no such module, or the range does not hold 0.
    """
    where = f"activations: {entry.module!r:.80}"
    module = modules.get(entry.module)
    if module is None:
        raise Damaged(f"header: {where}: the network has no such module")
    content = streams["activations"].take(RANGE_BYTES)
    scale, zero_point = unpack_range(content)
    quantizer = IntegerActivation(entry.bits, scale, zero_point)
    usable_scale = np.isfinite(scale) and scale > 0
    holds_zero = -quantizer.zero_point < quantizer.levels
    check(usable_scale and holds_zero, f"{where}: a bad range")
    if entry.operand is not None:
        attach_operand_fake_quantize(module, entry.operand, quantizer)
    elif entry.place == "input":
        attach_input_fake_quantize(module, quantizer)
    else:
        attach_output_fake_quantize(module, quantizer)
