"""A live layer to its entry and streams: integers behind the effective weight, and what follows the layer.

Codes are read from the effective weight in float64, and checked against it; a BatchNorm that follows a layer becomes a
factor and a bias a channel, whatever its sign, so no weight is quantised again.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from micronet_cli.artifact.entries import Layer
from micronet_cli.artifact.packer import FLOAT_BITS, Packer
from micronet_cli.artifact.stored_weights import along_channels
from micronet_cli.functional.quantization import quant_max
from micronet_cli.layers.batch_norm import gain_and_shift
from micronet_cli.layers.effective_weight import EffectiveWeight, effective_weight, incoming_weight
from micronet_cli.layers.fake_quantize import WeightFakeQuantize

# How far a weight times its scale may be from an integer. Codes are at most 2^16, so float64 leaves far less.
MAX_ROUNDING = 1e-3


def pack_layer(packer: Packer, name: str, layer: nn.Module, norm: nn.Module | None, integer: bool) -> Layer | None:
    """Store a layer's weight and what follows it; None where it is as good as any other parameter.

    Args:
        packer: takes the streams.
        name: of the layer in its network.
        layer: float64, in evaluation mode.
        norm: the BatchNorm that folds into it.
        integer: it may compute with integers and be rescaled.

    Raises:
        ValueError: a value is not finite, or the quantiser's codes do not give the effective weight.
    """
    effective = effective_weight(layer)
    weight: Tensor = layer.weight.detach()
    if not torch.isfinite(weight).all():
        raise ValueError(f"layer {name}: its weight is not finite")
    gain, bias = _gain_and_bias(layer, norm)
    if bias is not None and not np.isfinite(bias).all():
        raise ValueError(f"layer {name}: its bias is not finite")

    masked = effective is not None and effective.mask is not None
    entry = Layer(name, masked=masked)
    if effective is not None and effective.fake_quantize is not None:
        return _pack_quantised(packer, entry, layer, effective, gain, bias if integer else None, integer)

    # A mask of one bit an element has to pay for itself.
    zeros = int((weight == 0).sum())
    saves_bytes = FLOAT_BITS * zeros > weight.numel()
    if norm is None and not masked and not saves_bytes:
        return None
    entry = packer.floats(entry, weight.numpy())
    if gain is None:  # the layer keeps its own bias, a parameter like any other
        return entry
    numbers = packer.numbers(_of_used_channels(gain, weight), bias)
    return replace(entry, **numbers)


def stored_names(layer: nn.Module, entry: Layer) -> list[str]:
    """Names of the tensors that an entry stands for, relative to the layer."""
    names = []
    for key in layer.state_dict():
        if key == "weight" or key.startswith("parametrizations.weight."):
            names.append(key)
    if entry.rescaled:
        names.append("bias")
    return names


def _gain_and_bias(layer: nn.Module, norm: nn.Module | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """What the layer's sums are multiplied by, and what is added then: ``[C_out]`` each, None for 1 and 0."""
    bias = None if layer.bias is None else layer.bias.detach().numpy()
    if norm is None:
        return None, bias
    gain, shift = (values.numpy() for values in gain_and_shift(norm))
    if bias is None:
        return gain, shift
    return gain, shift + gain * bias


def _pack_quantised(
    packer: Packer,
    entry: Layer,
    layer: nn.Module,
    effective: EffectiveWeight,
    gain: np.ndarray | None,
    bias: np.ndarray | None,
    integer: bool,
) -> Layer:
    """Store a layer's integers, and the factors that make them its output."""
    quantizer = effective.fake_quantize
    assert quantizer is not None
    weight: Tensor = layer.weight.detach()
    scale, zero_point = effective.qparams(incoming_weight(layer).detach())
    integers, zero_codes = integers_of_weight(entry.name, weight, scale, zero_point, quantizer)
    codes = integers + along_channels(zero_codes, integers.ndim)
    largest_code = max(int(codes.max()), int(zero_codes.max()))

    # Where the score charges more than the scales, each range has a zero point of its own.
    scale_bits = 32 * quantizer.ranges(weight.shape)
    has_offsets = quantizer.qparams_bits(weight.shape) > scale_bits
    entry = replace(
        entry,
        bits=quantizer.bits,
        levels=max(2, largest_code + 1),
        per_tensor=quantizer.granularity == "per_tensor",
        zero_code=None if has_offsets else int(zero_codes[0]),
    )
    entry = packer.codes(entry, integers, zero_codes)

    factor = (1 / scale).reshape(-1).numpy()  # the step between two levels
    if gain is not None:
        factor = factor * gain
    numbers = packer.numbers(_of_used_channels(factor, weight), bias)
    return replace(entry, integer=integer, **numbers)


def _of_used_channels(scale: np.ndarray, weight: Tensor) -> np.ndarray:
    """Scales ``[C_out]`` or ``[1]``; that of a channel of zeros, which is arbitrary, is taken from another channel.

    The largest one sets the resolution of all, so it had better be one that is used.
    """
    used = weight.flatten(1).any(1).numpy()
    if scale.size == 1 or not used.any():
        return scale
    smallest = np.abs(scale[used]).min()
    return np.where(used, scale, smallest)


def integers_of_weight(
    name: str, weight: Tensor, scale: Tensor, zero_point: Tensor, quantizer: WeightFakeQuantize
) -> tuple[np.ndarray, np.ndarray]:
    """Integers of the effective weight, and codes of 0 (``[C_out]`` or ``[1]``), checked.

    Raises:
        ValueError: they do not give the weight back.
    """
    scaled = weight * scale
    integers = torch.round(scaled)
    codes = integers - zero_point
    largest: float = quant_max(quantizer.bits)
    if quantizer.levels == 2:  # a binary quantiser has the codes 0 and 2
        largest = float(codes.max())
    rounding = (scaled - integers).abs().max()
    if rounding > MAX_ROUNDING or codes.min() < 0 or codes.max() > largest:
        raise ValueError(f"layer {name}: {type(quantizer).__name__}'s codes do not give the effective weight")
    zero_codes = (-zero_point).reshape(-1).to(torch.int64).numpy()
    if zero_codes.min() < 0:
        raise ValueError(f"layer {name}: {type(quantizer).__name__} has a positive zero point")
    return integers.to(torch.int64).numpy(), zero_codes
