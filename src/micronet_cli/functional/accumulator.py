"""Weights whose dot products fit a chosen integer accumulator."""

from typing import Any

import torch
from torch import Tensor

from micronet_cli.functional.quantization import StraightThrough


def l1_limit(accumulator_bits: int, input_levels: int) -> int:
    """Largest sum of magnitudes of a channel's integer weights with which no input overflows a signed accumulator.

    ``floor((2^(P-1) - 1) / (2^N - 1))`` for integers of the input of magnitude at most 2^N - 1 = ``input_levels - 1``,
    wherever its zero point lies: the bound of A2Q (Colbert et al., arXiv 2308.13504, section 3).

    Args:
        accumulator_bits: P, at least 1.
        input_levels: 2^N, at least 2.

    >>> l1_limit(8, 16), l1_limit(12, 16)
    (8, 136)
    """
    magnitude_bits = accumulator_bits - 1
    largest_sum = 2**magnitude_bits - 1
    largest_input = input_levels - 1
    return largest_sum // largest_input


def accumulator_aware(weight: Tensor, step: Tensor, largest_integer: int, limit: int) -> Tensor:
    """``weight`` as integers -n .. n times ``step``, each output channel's magnitudes summing to ``limit`` at most.

    A channel above the limit is projected on the l1 ball of that radius (as A2Q+ initialises, Colbert et al.,
    arXiv 2401.10432); its magnitudes are rounded down, and the largest fractions are raised (ties by index) as long as
    the limit allows. A channel below it is rounded to nearest, half up, as far as the limit allows.
    The gradient of projecting and rounding is 1.

    Args:
        weight: [C_out, ...].
        step: [C_out, 1, ...], > 0.
        largest_integer: n.
        limit: see ``l1_limit``.

    >>> weight = torch.tensor([[4.0, -2.0, 0.0], [1.9, 0.0, 0.4]])
    >>> accumulator_aware(weight, torch.ones(2, 1), 7, 3).abs().tolist()
    [[3.0, 0.0, 0.0], [2.0, 0.0, 0.0]]
    """
    scaled = weight / step
    clipped = scaled.clamp(-largest_integer, largest_integer)
    exact = clipped.detach()
    magnitudes = exact.abs()
    by_channel = magnitudes.flatten(1)
    rounded = _rounded_within(by_channel, limit)
    signs = exact.sign()
    signed = rounded.view_as(exact) * signs
    integers = StraightThrough.apply(clipped, signed)
    return integers * step


def _rounded_within(magnitudes: Tensor, limit: int) -> Tensor:
    """Whole numbers near to ``magnitudes``, each row with a sum of ``limit`` at most."""
    total = magnitudes.sum(1, keepdim=True)
    above_limit = total > limit
    projected = project_l1(magnitudes, limit)
    down = projected.floor()
    fraction = projected - down
    # What the limit leaves once every magnitude is rounded down goes to the largest fractions.
    rounded_total = down.sum(1, keepdim=True)
    left = limit - rounded_total
    largest_first = fraction.sort(dim=1, descending=True, stable=True)
    rank = largest_first.indices.argsort(1)
    has_fraction = fraction > 0
    rounds_up = fraction >= 0.5
    may_rise = torch.where(above_limit, has_fraction, rounds_up)
    rises = may_rise & (rank < left)
    up = down + 1
    return torch.where(rises, up, down)


def project_l1(magnitudes: Tensor, radius: float) -> Tensor:
    """Each row of non-negative numbers moved to the nearest point with a sum of ``radius`` at most.

    max(m - t, 0) with the t >= 0 that makes the sum fit (Duchi et al., ICML 2008, figure 1).

    >>> project_l1(torch.tensor([[4.0, 2.0, 0.0], [1.0, 1.0, 1.0]]), 3).tolist()
    [[2.5, 0.5, 0.0], [1.0, 1.0, 1.0]]
    """
    elements = magnitudes.shape[1]
    largest_first = magnitudes.sort(1, descending=True)
    ordered = largest_first.values
    count = torch.arange(1, elements + 1, device=magnitudes.device)
    # What each of the n largest loses where they alone are left, for every n.
    excess = ordered.cumsum(1) - radius
    thresholds = excess / count
    is_left = ordered > thresholds
    left = is_left.sum(1, keepdim=True)
    last = left.clamp(min=1) - 1
    threshold = thresholds.gather(1, last)
    threshold = threshold.clamp(min=0)
    moved = magnitudes - threshold
    return moved.clamp(min=0)


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """``x`` with its gradient times ``factor`` (LSQ, arXiv 1902.08153, section 2.2)."""
    return _ScaleGradient.apply(x, factor)


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None
