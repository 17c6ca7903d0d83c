"""A live layer to its entry and streams: integers behind the effective weight, and what follows the layer.

Codes are those that the layer executes in its own precision, read from its effective weight and checked against it.
Scales are computed in float64. A BatchNorm that follows a layer becomes a factor and a bias a channel, in float64 too
and whatever its sign, so no weight is quantised again.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from micronet_cli.artifact.entries import Layer
from micronet_cli.artifact.packer import FLOAT_BITS, Packer
from micronet_cli.artifact.stored_weights import along_channels
from micronet_cli.functional.quantization import quant_max
from micronet_cli.layers.batch_norm import gain_and_shift
from micronet_cli.layers.effective_weight import EffectiveWeight, effective_weight, incoming_weight
from micronet_cli.layers.fake_quantize import WeightFakeQuantize
from micronet_cli.layers.held_codes import weight_scale

# How far a weight times its scale may be from an integer, beside what the layer's precision leaves of the product:
# weight and scale are rounded a few times by half of its resolution each.
MAX_ROUNDING = 1e-3
ROUNDINGS = 2


def pack_layer(packer: Packer, name: str, layer: nn.Module, norm: nn.Module | None, integer: bool) -> Layer | None:
    """Store a layer's weight and what follows it; None where it is as good as any other parameter.

    Args:
        packer: takes the streams.
        name: of the layer in its network.
        layer: in the precision that it is executed in, in evaluation mode.
        norm: the BatchNorm that folds into it.
        integer: it may compute with integers and be rescaled.

    Raises:
        ValueError: a value is not finite, or the quantiser's codes do not give the effective weight.
    """
    effective = effective_weight(layer)
    weight: Tensor = layer.weight.detach().double()
    if not torch.isfinite(weight).all():
        raise ValueError(f"layer {name}: its weight is not finite")
    after = _after(layer, norm)
    if after.bias is not None:
        is_finite = np.isfinite(after.bias)
        if not is_finite.all():
            raise ValueError(f"layer {name}: its bias is not finite")

    masked = effective is not None and effective.mask is not None
    entry = Layer(name, masked=masked)
    if effective is not None and effective.fake_quantize is not None:
        return _pack_quantised(packer, entry, layer, effective, after, integer)

    # What parametrisations make is stored as it is: a reader's layer has none of them.
    needs_entry = is_parametrized(layer, "weight") or norm is not None
    if not needs_entry and not _mask_pays(weight):
        return None
    entry = packer.floats(entry, weight.numpy())
    if after.gain is None:  # the layer keeps its own bias, a parameter like any other
        return entry
    gain = _of_used_channels(after.gain, weight)
    numbers = packer.numbers(gain, after.bias)
    return replace(entry, **numbers)


def _mask_pays(weight: Tensor) -> bool:
    """Whether zeros save more than a mask of one bit an element takes."""
    zeros = int((weight == 0).sum())
    return FLOAT_BITS * zeros > weight.numel()


@dataclass(frozen=True)
class After:
    """What the layer's sums are multiplied by, and what is added then: ``[C_out]`` each, None for 1 and 0."""

    gain: np.ndarray | None
    bias: np.ndarray | None


def _after(layer: nn.Module, norm: nn.Module | None) -> After:
    """A BatchNorm behind the layer, and the layer's own bias."""
    bias = None
    if layer.bias is not None:
        bias = layer.bias.detach().double().numpy()
    if norm is None:
        return After(None, bias)
    of_norm = gain_and_shift(norm)
    gain, shift = [values.numpy() for values in of_norm]
    if bias is not None:
        shift = shift + gain * bias
    return After(gain, shift)


def stored_names(layer: nn.Module, entry: Layer) -> list[str]:
    """Names of the tensors that an entry stands for, relative to the layer."""
    names = []
    for key in layer.state_dict():
        of_weight = key == "weight" or key.startswith("parametrizations.weight.")
        if of_weight:
            names.append(key)
    if entry.rescaled:
        names.append("bias")
    return names


def _pack_quantised(
    packer: Packer, entry: Layer, layer: nn.Module, effective: EffectiveWeight, after: After, integer: bool
) -> Layer:
    """Store a layer's integers, and the factors that make them its output."""
    quantizer = effective.fake_quantize
    assert quantizer is not None
    weight: Tensor = layer.weight.detach()
    incoming = effective.masked(incoming_weight(layer).detach())
    own_scale, zero_point = quantizer.qparams(incoming)
    integers, zero_codes = integers_of_weight(entry.name, weight, own_scale, zero_point, quantizer)
    scale = weight_scale(quantizer, incoming, torch.float64)
    codes = integers + along_channels(zero_codes, integers.ndim)
    largest_code = max(codes.max(), zero_codes.max())
    used_levels = int(largest_code) + 1

    # Where the score charges more than the scales, each range has a zero point of its own.
    scale_bits = 32 * quantizer.ranges(weight.shape)
    has_offsets = quantizer.qparams_bits(weight.shape) > scale_bits
    zero_code = None
    if not has_offsets:
        zero_code = int(zero_codes[0])
    entry = replace(
        entry,
        bits=quantizer.bits,
        levels=max(2, used_levels),
        per_tensor=quantizer.granularity == "per_tensor",
        zero_code=zero_code,
    )
    entry = packer.codes(entry, integers, zero_codes)

    steps = 1 / scale  # between two levels
    factor = steps.reshape(-1).numpy()
    if after.gain is not None:
        factor = factor * after.gain
    used_factor = _of_used_channels(factor, weight)
    # A layer that computes with real values keeps its own bias.
    bias = after.bias if integer else None
    numbers = packer.numbers(used_factor, bias)
    return replace(entry, integer=integer, **numbers)


def _of_used_channels(scale: np.ndarray, weight: Tensor) -> np.ndarray:
    """Scales ``[C_out]`` or ``[1]``; that of a channel of zeros, which is arbitrary, is taken from another channel.

    The largest one sets the resolution of all, so it had better be one that is used.
    """
    used = weight.flatten(1).any(1).numpy()
    if scale.size == 1 or not used.any():
        return scale
    used_scales = np.abs(scale[used])
    smallest = used_scales.min()
    return np.where(used, scale, smallest)


def integers_of_weight(
    name: str, weight: Tensor, scale: Tensor, zero_point: Tensor, quantizer: WeightFakeQuantize
) -> tuple[np.ndarray, np.ndarray]:
    """Integers of the effective weight, and codes of 0 (``[C_out]`` or ``[1]``), checked.

    Weight, scale and zero point are in the precision that they are executed in.

    Raises:
        ValueError: they do not give the weight back.
    """
    scaled = weight.double() * scale.double()
    integers = torch.round(scaled)
    codes = integers - zero_point
    largest: float = quant_max(quantizer.bits)
    if quantizer.levels == 2:  # a binary quantiser has the codes 0 and 2
        largest = float(codes.max())
    rounding = (scaled - integers).abs()
    in_range = codes.min() >= 0 and codes.max() <= largest
    scheme = type(quantizer).__name__
    resolution = ROUNDINGS * torch.finfo(weight.dtype).eps
    most_rounding = MAX_ROUNDING + resolution * integers.abs()
    is_grid = bool((rounding <= most_rounding).all())
    if not is_grid or not in_range:
        raise ValueError(f"layer {name}: {scheme}'s codes do not give the effective weight")
    zero_codes = -zero_point.reshape(-1)
    if zero_codes.min() < 0:
        raise ValueError(f"layer {name}: {scheme} has a positive zero point")
    return _to_int64(integers), _to_int64(zero_codes)


def _to_int64(values: Tensor) -> np.ndarray:
    return values.to(torch.int64).numpy()
