"""Range-linear quantisation: codes, ranges and the straight-through gradient.

Shapes: weight ``[C_out, ...] -> scale, zero_point [C_out, 1, ...]`` (per channel) or ``[]`` (per tensor).
"""

import math
from typing import Any

import torch
from torch import Tensor

from micronet_cli.functional.cache_blocks import blocks, blocks_pay, dense

# Float32's smallest normal number, below which a step's reciprocal overflows. In every precision, so that a network in
# float64 has the zeros that it has in float32.
SMALLEST_STEP = torch.finfo(torch.float32).tiny
# Of a step that is learned: float32's resolution at 1.
SMALLEST_LEARNED_STEP = torch.finfo(torch.float32).eps


def quant_max(bits: float) -> int:
    """Largest code of a ``bits``-bit quantiser with codes ``0 .. quant_max``; fractional bits give odd level counts.

    >>> quant_max(4), quant_max(2.5), quant_max(2.4), quant_max(1)
    (15, 4, 4, 1)
    """
    largest = 2**bits - 1
    return math.floor(largest)


def signed_min(largest: int) -> int:
    """Smallest integer of a signed quantiser with ``largest + 1`` levels: Q_N = 2^(b-1) for whole bits.

    >>> signed_min(15), signed_min(4)
    (-8, -2)
    """
    levels = largest + 1
    return -(levels // 2)


def channel_range(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value per output channel: ``[C_out, ...] -> 2 x [C_out, 1, ...]``."""
    dims = tuple(range(1, weight.dim()))
    if not dims:
        return torch.aminmax(weight, dim=None)
    low = weight.amin(dims, keepdim=True)
    high = weight.amax(dims, keepdim=True)
    return low, high


def tensor_range(x: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value, 0-dim each; channels_last is read as it lies in memory, without a copy."""
    is_image = x.dim() == 4
    if is_image and not x.is_contiguous():
        x = x.permute(0, 2, 3, 1)
    low, high = torch.aminmax(x)
    return low, high


def range_linear(low: Tensor, high: Tensor, bits: float) -> tuple[Tensor, Tensor]:
    """Scale and integer zero point of the asymmetric range-linear quantiser over ``[low, high]``, 0 made a member.

    With n = 2^b - 1: ``scale = n / (high - low)``, ``zero_point = round(scale * low)`` and
    ``q = round(scale * x - zero_point)``, ``x' = (q + zero_point) / scale`` (Distiller's range-linear quantiser, used
    by the 2019 MicroNet entry). 0 maps to the code ``-zero_point`` and back to exactly 0. A range that is empty or too
    narrow gets scale 1.
    """
    low = low.clamp(max=0)
    high = high.clamp(min=0)
    steps = 2**bits - 1
    scale = steps_per_unit(high - low, steps)
    zero_point = torch.round(scale * low)
    # The zero code must exist although fractional bits cut the top of the range.
    largest = quant_max(bits)
    return scale, zero_point.clamp(min=-largest)


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
    scale = steps_per_unit(magnitude, half)
    zero_point = -half
    if unsigned:
        zero_point = torch.where(low < 0, zero_point, 0.0)
    return scale, zero_point


def steps_per_unit(width: Tensor, steps: Tensor | float) -> Tensor:
    """The scale of a range of ``width`` >= 0 in so many steps; 1 where it is empty, or too narrow for its steps.

    Too narrow is a range whose step is not above ``SMALLEST_STEP``: all that lies in it is rounded to 0.

    >>> steps_per_unit(torch.tensor([2.0, 1e-38, 0.0]), 15).tolist()
    [7.5, 1.0, 1.0]
    """
    is_usable = width > steps * SMALLEST_STEP
    divisor = torch.where(is_usable, width, 1.0)
    scale = steps / divisor
    return torch.where(is_usable, scale, 1.0)


def codes(x: Tensor, scale: Tensor, zero_point: Tensor, largest: int) -> Tensor:
    """Integer codes in ``[0, largest]`` of ``x``, in the float type of ``x``."""
    scaled = x * scale - zero_point
    rounded = torch.round(scaled)
    return rounded.clamp_(0, largest)


def clip_bounds(scale: Any, zero_point: Any, largest: int) -> tuple[Any, Any]:
    """Values between which a code is not clamped: half a step beyond the smallest and the largest level."""
    first = zero_point - 0.5
    last = largest + zero_point + 0.5
    return first / scale, last / scale


def clipped_gradient(grad: Tensor, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``grad`` where ``low <= x <= high``, else 0."""
    if torch.compiler.is_compiling():
        # A compiler would save the mask in the place of x, and its CPU code for masks is slow.
        above = torch.relu(x - high)
        below = torch.relu(low - x)
        clipped = (above + below).sign()
        return grad * (1 - clipped)
    inside = (x >= low) & (x <= high)
    return torch.where(inside, grad, 0.0)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        largest: int,
        clip_gradient: bool,
    ) -> Tensor:
        ctx.largest = largest
        ctx.clips = clip_gradient
        if clip_gradient:
            ctx.save_for_backward(x, scale, zero_point)
        out = codes(x, scale, zero_point, largest)
        out.add_(zero_point)
        return out.div_(scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.clips:
            x, scale, zero_point = ctx.saved_tensors
            low, high = clip_bounds(scale, zero_point, ctx.largest)
            grad = clipped_gradient(grad, x, low, high)
        return grad, None, None, None, None


class _FakeQuantizeInBlocks(torch.autograd.Function):
    """The same numbers for one range a tensor, in the processor's cache."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: float,
        zero_point: float,
        largest: int,
        clip_gradient: bool,
    ) -> Tensor:
        x = dense(x)
        ctx.clips = clip_gradient
        if clip_gradient:
            ctx.save_for_backward(x)
            ctx.bounds = clip_bounds(scale, zero_point, largest)
        return quantize_blocks(x, scale, zero_point, largest)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.clips:
            (x,) = ctx.saved_tensors
            low, high = ctx.bounds
            grad = torch.ops.aten.hardtanh_backward(grad, x, low, high)
        return grad, None, None, None, None


def quantize_blocks(x: Tensor, scale: float, zero_point: float, largest: int) -> Tensor:
    """``x`` (dense in memory) rounded to its quantised values, a block after the other."""
    out = torch.empty_like(x)
    for source, part in blocks(x, out):
        torch.mul(source, scale, out=part)
        if zero_point:
            part.sub_(zero_point)
        part.round_()
        part.clamp_(0, largest)
        if zero_point:
            part.add_(zero_point)
        part.div_(scale)
    return out


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    largest: int,
    clip_gradient: bool = True,
) -> Tensor:
    """``x`` rounded to its quantised values, with the straight-through gradient (Bengio et al., arXiv 1308.3432).

    The gradient is 1; with ``clip_gradient`` it is 0 where the code was clamped.
    """
    one_range = scale.dim() == 0
    if not one_range or not blocks_pay(x):
        return _FakeQuantize.apply(x, scale, zero_point, largest, clip_gradient)
    return _FakeQuantizeInBlocks.apply(
        x,
        scale.item(),
        zero_point.item(),
        largest,
        clip_gradient,
    )


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
