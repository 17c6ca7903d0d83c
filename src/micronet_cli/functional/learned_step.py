"""Quantisers whose step size is learned: LSQ, LSQ+ and PACT, which differ in the step's gradient alone.

Integers are ``zero_point .. zero_point + largest``; a value of the output is an integer times the step.
"""

from typing import Any

import torch
from torch import Tensor

from micronet_cli.functional.cache_blocks import blocks_pay, dense, flat
from micronet_cli.functional.quantization import codes, quantize_blocks


def lsq_step(x: Tensor, largest_integer: int, dims: tuple[int, ...] | None = None) -> Tensor:
    """LSQ's first step size 2 <|x|> / sqrt(Q_P) (arXiv 1902.08153, section 2.1), over the non-zeros of ``x``.

    Zeros are left out because those of a pruned weight say nothing of its spread. Without non-zeros the step is 1.

    Args:
        x: weight or activation.
        largest_integer: Q_P.
        dims: reduced dimensions, kept as size 1; None: all.

    >>> lsq_step(torch.tensor([-3.0, 0.0, 1.0]), 4)
    tensor(2.)
    """
    magnitude = x.abs()
    nonzero = x != 0
    if dims:
        total = magnitude.sum(dims, keepdim=True)
        used = nonzero.sum(dims, keepdim=True)
    else:
        total = magnitude.sum()
        used = nonzero.sum()
    doubled_mean = 2 * total / used.clamp_min(1)
    step = doubled_mean / largest_integer**0.5
    return torch.where(total > 0, step, 1.0)


def lsq_plus_step(weight: Tensor, largest: int, dims: tuple[int, ...] | None = None) -> Tensor:
    """LSQ+'s first step of weights max(|mean - 3 sd|, |mean + 3 sd|) / 2^(b-1) (arXiv 2004.09576, section 3.2)."""
    has_dims = dims is not None
    deviation, mean = torch.std_mean(weight, dims, correction=0, keepdim=has_dims)
    spread = 3 * deviation
    below = mean - spread
    above = mean + spread
    reach = torch.maximum(below.abs(), above.abs())
    levels = (largest + 1) / 2
    step = reach / levels
    return torch.where(reach > 0, step, 1.0)


def learned_step(
    x: Tensor,
    step: Tensor,
    zero_point: Tensor,
    largest: int,
    gradient_scale: float | Tensor,
    residual: bool = True,
    offset: Tensor | None = None,
) -> Tensor:
    """``x`` rounded to integers times ``step``, with gradients for ``x`` and ``step``.

    With v = x / step, Q_N <= v <= Q_P the integers and v' the rounded and clamped v:

    - d out / d x = 1 where Q_N < v < Q_P, else 0 (LSQ, arXiv 1902.08153, equation 5);
    - d out / d step = v' - v where Q_N < v < Q_P, else Q_N or Q_P (equation 3), times ``gradient_scale``
      (section 2.2); without ``residual`` 0 where Q_N < v < Q_P (PACT, arXiv 1805.06085, equation 3, with
      alpha = Q_P step);
    - ``offset`` (LSQ+, arXiv 2004.09576, section 3.1) has gradient 0 inside and 1 where x is clipped, and the
      step's is counted from the offset. The offset used is the whole number ``zero_point`` of steps, so 0 stays 0.

    Args:
        x: weight or activation.
        step: broadcast to ``x``, > 0.
        zero_point: Q_N, a whole number in float, of the step's shape or 0-dim.
        largest: Q_P - Q_N.
        gradient_scale: factor of the gradients of step and offset, a number or 0-dim.
        residual: LSQ's gradient inside the range; False: PACT's.
        offset: receives a gradient, of the step's shape; its value is not read.
    """
    one_range = step.dim() == 0 and zero_point.dim() == 0
    if one_range and blocks_pay(x):
        number = float(gradient_scale)
        return _LearnedStepInBlocks.apply(x, step, zero_point, largest, number, residual, offset)
    if not isinstance(gradient_scale, Tensor):
        gradient_scale = step.new_full((), gradient_scale)
    return _LearnedStep.apply(x, step, zero_point, largest, gradient_scale, residual, offset)


class _LearnedStep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        step: Tensor,
        zero_point: Tensor,
        largest: int,
        gradient_scale: Tensor,
        residual: bool,
        offset: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(x, step, zero_point, gradient_scale)
        ctx.largest = largest
        ctx.residual = residual
        ctx.has_offset = offset is not None
        inverse = step.reciprocal()
        out = codes(x, inverse, zero_point, largest)
        out.add_(zero_point)
        return out.div_(inverse)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, step, zero_point, gradient_scale = ctx.saved_tensors
        # Names are used again and temporaries have none: each would hold memory of the activation's size.
        exact = x * step.reciprocal() - zero_point
        rounded = torch.round(exact).clamp_(0, ctx.largest)
        grad_x = _inside(grad, exact, ctx.largest)
        values = exact if ctx.residual else rounded
        if not ctx.has_offset:
            # With an offset the step multiplies the codes, without one the integers.
            values = values + zero_point
            rounded = rounded + zero_point
        slope = rounded - _inside(values, exact, ctx.largest)
        grad_step = (grad * slope).sum_to_size(step.shape) * gradient_scale
        grad_offset = None
        if ctx.has_offset:
            outer_grad = grad - grad_x
            grad_offset = outer_grad.sum_to_size(step.shape) * gradient_scale
        return grad_x, grad_step, None, None, None, None, grad_offset


def _inside(values: Tensor, code: Tensor, largest: int) -> Tensor:
    """``values`` where ``0 < code < largest``, else 0.

    By the operation of a clamp's gradient: on the CPU comparisons and ``where`` go through boolean masks, which
    take ten times as long.
    """
    return torch.ops.aten.hardtanh_backward(values, code, 0, largest)


class _LearnedStepInBlocks(torch.autograd.Function):
    """The same numbers for one step a tensor; sums over the tensor become dot products."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        step: Tensor,
        zero_point: Tensor,
        largest: int,
        gradient_scale: float,
        residual: bool,
        offset: Tensor | None,
    ) -> Tensor:
        x = dense(x)
        inverse = step.reciprocal()
        first = zero_point.item()
        out = quantize_blocks(x, inverse.item(), first, largest)
        ctx.save_for_backward(x, out)
        ctx.step = step
        ctx.step_size = step.item()
        ctx.first = first
        ctx.last = first + largest
        ctx.gradient_scale = gradient_scale
        ctx.residual = residual
        ctx.has_offset = offset is not None
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, out = ctx.saved_tensors
        if grad.stride() != x.stride():
            grad = torch.empty_like(x).copy_(grad)
        low = ctx.first * ctx.step_size
        high = ctx.last * ctx.step_size
        grad_x = torch.ops.aten.hardtanh_backward(grad, x, low, high)
        all_grads = flat(grad)
        inner_grads = flat(grad_x)
        inner_values = x if ctx.residual else out
        rounded = torch.dot(all_grads, flat(out))
        exact = torch.dot(inner_grads, flat(inner_values))
        outside = 0.0
        grad_offset = None
        if ctx.has_offset:
            outer_grads = all_grads.sum() - inner_grads.sum()
            outside = outer_grads.item()
            grad_offset = torch.full_like(ctx.step, outside * ctx.gradient_scale)
        difference = rounded.item() - exact.item()
        slope = difference / ctx.step_size - ctx.first * outside
        grad_step = torch.full_like(ctx.step, slope * ctx.gradient_scale)
        return grad_x, grad_step, None, None, None, None, grad_offset
