"""Range-linear quantisation: codes, ranges and the straight-through gradient.

Shapes: weight ``[C_out, ...] -> scale, zero_point [C_out, 1, ...]`` (per channel) or ``[]`` (per tensor).
"""

import math
from typing import Any

import torch
from torch import Tensor

from micronet_cli.functional.cache_blocks import blocks, blocks_pay, dense


def quant_max(bits: float) -> int:
    """Largest code of a ``bits``-bit quantiser with codes ``0 .. quant_max``; fractional bits give odd level counts.

    >>> quant_max(4), quant_max(2.5), quant_max(2.4), quant_max(1)
    (15, 4, 4, 1)
    """
    return math.floor(2**bits - 1)


def signed_min(largest: int) -> int:
    """Smallest integer of a signed quantiser with ``largest + 1`` levels: Q_N = 2^(b-1) for whole bits.

    >>> signed_min(15), signed_min(4)
    (-8, -2)
    """
    return -((largest + 1) // 2)


def channel_range(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value per output channel: ``[C_out, ...] -> 2 x [C_out, 1, ...]``."""
    dims = tuple(range(1, weight.dim()))
    if not dims:
        return torch.aminmax(weight, dim=None)
    return weight.amin(dims, True), weight.amax(dims, True)


def tensor_range(x: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value, 0-dim each; channels_last is read as it lies in memory, without a copy."""
    if x.dim() == 4 and not x.is_contiguous():
        x = x.permute(0, 2, 3, 1)
    low, high = torch.aminmax(x)
    return low, high


def range_linear(low: Tensor, high: Tensor, bits: float) -> tuple[Tensor, Tensor]:
    """Scale and integer zero point of the asymmetric range-linear quantiser over ``[low, high]``, 0 made a member.

    With n = 2^b - 1: ``scale = n / (high - low)``, ``zero_point = round(scale * low)`` and
    ``q = round(scale * x - zero_point)``, ``x' = (q + zero_point) / scale`` (Distiller's range-linear quantiser, used
    by the 2019 MicroNet entry). 0 maps to the code ``-zero_point`` and back to exactly 0. An empty range gets scale 1.
    """
    low = low.clamp(max=0)
    high = high.clamp(min=0)
    width = high - low
    tiny = torch.finfo(width.dtype).tiny
    scale = torch.where(width > 0, (2**bits - 1) / width.clamp_min(tiny), 1.0)
    # The zero code must exist although fractional bits cut the top of the range.
    zero_point = torch.round(scale * low).clamp(min=-quant_max(bits))
    return scale, zero_point


def range_symmetric(low: Tensor, high: Tensor, bits: float, unsigned: bool = False) -> tuple[Tensor, Tensor]:
    """Scale and zero point of the symmetric quantiser over ``[-m, m]``, m = max(|low|, |high|).

    With L levels the integers are ``-n .. n``, n = (L - 1) // 2 (Jacob et al., arXiv 1712.05877, section 3, "narrow
    range"): ``scale = n / m``, ``zero_point = -n``; whoever clamps to all L codes adds n + 1. With ``unsigned``, data
    without negative values (``low >= 0``) get all of ``0 .. L - 1``: ``scale = (L - 1) / high``, zero point 0.
    """
    largest = quant_max(bits)
    half = torch.full_like(low, largest // 2)
    if unsigned:
        half = torch.where(low < 0, half, float(largest))
    magnitude = torch.maximum(-low, high)
    tiny = torch.finfo(low.dtype).tiny
    scale = torch.where(magnitude > 0, half / magnitude.clamp_min(tiny), 1.0)
    zero_point = torch.where(low < 0, -half, 0.0) if unsigned else -half
    return scale, zero_point


def codes(x: Tensor, scale: Tensor, zero_point: Tensor, largest: int) -> Tensor:
    """Integer codes in ``[0, largest]`` of ``x``, in the float type of ``x``."""
    return torch.round(x * scale - zero_point).clamp_(0, largest)


def clip_bounds(scale: Any, zero_point: Any, largest: int) -> tuple[Any, Any]:
    """Values between which a code is not clamped: half a step beyond the smallest and the largest level."""
    low = (zero_point - 0.5) / scale
    high = (largest + zero_point + 0.5) / scale
    return low, high


def clipped_gradient(grad: Tensor, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``grad`` where ``low <= x <= high``, else 0."""
    if torch.compiler.is_compiling():
        # A compiler would save the mask in the place of x, and its CPU code for masks is slow.
        beyond = torch.relu(x - high) + torch.relu(low - x)
        return grad * (1 - beyond.sign())
    inside = (x >= low) & (x <= high)
    return torch.where(inside, grad, 0.0)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, largest: int, clip_gradient: bool) -> Tensor:
        ctx.largest = largest if clip_gradient else None
        if clip_gradient:
            ctx.save_for_backward(x, scale, zero_point)
        return codes(x, scale, zero_point, largest).add_(zero_point).div_(scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        if ctx.largest is not None:
            x, scale, zero_point = ctx.saved_tensors
            low, high = clip_bounds(scale, zero_point, ctx.largest)
            grad = clipped_gradient(grad, x, low, high)
        return grad, None, None, None, None


class _FakeQuantizeInBlocks(torch.autograd.Function):
    """The same numbers for one range a tensor, in the processor's cache."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, zero_point: float, largest: int, clip_gradient: bool) -> Tensor:
        x = dense(x)
        ctx.bounds = clip_bounds(scale, zero_point, largest) if clip_gradient else None
        if clip_gradient:
            ctx.save_for_backward(x)
        return quantize_blocks(x, scale, zero_point, largest)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        if ctx.bounds is not None:
            (x,) = ctx.saved_tensors
            grad = torch.ops.aten.hardtanh_backward(grad, x, *ctx.bounds)
        return grad, None, None, None, None


def quantize_blocks(x: Tensor, scale: float, zero_point: float, largest: int) -> Tensor:
    """``x`` (dense in memory) rounded to its quantised values, a block after the other."""
    out = torch.empty_like(x)
    for source, part in blocks(x, out):
        torch.mul(source, scale, out=part)
        if zero_point:
            part.sub_(zero_point).round_().clamp_(0, largest).add_(zero_point).div_(scale)
        else:
            part.round_().clamp_(0, largest).div_(scale)
    return out


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, largest: int, clip_gradient: bool = True) -> Tensor:
    """``x`` rounded to its quantised values, with the straight-through gradient (Bengio et al., arXiv 1308.3432).

    The gradient is 1; with ``clip_gradient`` it is 0 where the code was clamped.
    """
    if scale.dim() == 0 and blocks_pay(x):
        return _FakeQuantizeInBlocks.apply(x, scale.item(), zero_point.item(), largest, clip_gradient)
    return _FakeQuantize.apply(x, scale, zero_point, largest, clip_gradient)


class StraightThrough(torch.autograd.Function):
    """``(x, value) -> value`` with gradient 1 for ``x``; exactly ``value``, which ``x + (value - x)`` is not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        """The value."""
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Straight through."""
        return grad, None


def _channel_mean(values: Tensor, used: Tensor) -> Tensor:
    """Mean of the ``used`` values per output channel, 0 where there are none: ``[C_out, 1, ...]``."""
    dims = tuple(range(1, values.dim()))
    total = (values * used).sum(dims, keepdim=True)
    count = used.sum(dims, keepdim=True)
    return total / count.clamp_min(1)


def binary(weight: Tensor) -> Tensor:
    """``sign(w) mean|w|`` per output channel (XNOR-Net, arXiv 1603.05279, equation 6), sign(0) = 1; gradient 1.

    >>> binary(torch.tensor([[-1.0, 3.0]])).tolist()
    [[-2.0, 2.0]]
    """
    values = weight.detach()
    everything = torch.ones_like(values, dtype=torch.bool)
    magnitude = _channel_mean(values.abs(), everything)
    signed = torch.where(values < 0, -magnitude, magnitude)
    return StraightThrough.apply(weight, signed)


def ternary(weight: Tensor) -> Tensor:
    """-a, 0 or a per output channel (Ternary Weight Networks, arXiv 1605.04711, equations 5 and 6); gradient 1.

    0 where |w| <= d = 0.7 mean|w|; a is the mean magnitude of the others. The mean is over non-zeros, since zeros of a
    mask say nothing of the spread.

    >>> ternary(torch.tensor([[-1.0, 0.25, 3.0, 0.0]])).tolist()
    [[-2.0, 0.0, 2.0, 0.0]]
    """
    values = weight.detach()
    magnitude = values.abs()
    spread = _channel_mean(magnitude, magnitude > 0)
    used = magnitude > 0.7 * spread
    level = _channel_mean(magnitude, used)
    return StraightThrough.apply(weight, values.sign() * used * level)


def dorefa(weight: Tensor) -> Tensor:
    """DoReFa-Net's weight before rounding: ``max|w| tanh(w) / max|tanh(w)|`` (arXiv 1606.06160, equation 9).

    The paper's weights end in [-1, 1] and on 2^k levels without 0. Here they keep the trained network's ``max|w|``,
    and are to be rounded to the 2n + 1 integers -n .. n, so that 0 stays 0. The gradient goes through tanh.
    """
    bent = torch.tanh(weight)
    largest_bent = bent.detach().abs().amax()
    largest = weight.detach().abs().amax()
    factor = torch.where(largest_bent > 0, largest / largest_bent, 1.0)
    return bent * factor
