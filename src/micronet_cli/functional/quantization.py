"""Range-linear quantisation: codes, ranges and the straight-through gradient.

Shapes: weight ``[C_out, ...] -> scale, zero_point [C_out, 1, ...]`` (per channel) or ``[]`` (per tensor).
"""

import math
from typing import Any

import torch
from torch import Tensor


def quant_max(bits: float) -> int:
    """Largest code of a ``bits``-bit quantiser with codes ``0 .. quant_max``; fractional bits give odd level counts.

    >>> quant_max(4), quant_max(2.5), quant_max(2.4), quant_max(1)
    (15, 4, 4, 1)
    """
    return math.floor(2**bits - 1)


def channel_range(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value per output channel: ``[C_out, ...] -> 2 x [C_out, 1, ...]``."""
    dims = tuple(range(1, weight.dim()))
    return torch.aminmax(weight, dim=None) if not dims else (weight.amin(dims, True), weight.amax(dims, True))


def range_linear(low: Tensor, high: Tensor, bits: float) -> tuple[Tensor, Tensor]:
    """Scale and integer zero point of the asymmetric range-linear quantiser over ``[low, high]``, 0 made a member.

    With n = 2^b - 1: ``scale = n / (high - low)``, ``zero_point = round(scale * low)`` and
    ``q = round(scale * x - zero_point)``, ``x' = (q + zero_point) / scale`` (Distiller's range-linear quantiser, used
    by the 2019 MicroNet entry). 0 maps to the code ``-zero_point`` and back to exactly 0. An empty range gets scale 1.
    """
    low, high = low.clamp(max=0), high.clamp(min=0)
    width = high - low
    scale = torch.where(width > 0, (2**bits - 1) / width.clamp_min(torch.finfo(width.dtype).tiny), 1.0)
    # The zero code must exist although fractional bits cut the top of the range.
    return scale, torch.round(scale * low).clamp(min=-quant_max(bits))


def codes(x: Tensor, scale: Tensor, zero_point: Tensor, largest: int) -> Tensor:
    """Integer codes in ``[0, largest]`` of ``x``, in the float type of ``x``."""
    return torch.round(x * scale - zero_point).clamp_(0, largest)


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
            low, high = (zero_point - 0.5) / scale, (ctx.largest + zero_point + 0.5) / scale
            grad = grad * ((x >= low) & (x <= high))
        return grad, None, None, None, None


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, largest: int, clip_gradient: bool = True) -> Tensor:
    """``x`` rounded to its quantised values, with the straight-through gradient (Bengio et al., arXiv 1308.3432).

    The gradient is 1; with ``clip_gradient`` it is 0 where the code was clamped.
    """
    return _FakeQuantize.apply(x, scale, zero_point, largest, clip_gradient)
