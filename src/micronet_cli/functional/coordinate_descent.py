"""Weights of a layer rounded together: the integers that keep a quadratic form of them small.

With H the second moments of what a layer reads, and b what they have in common with the wished output, a row w of its
weight has the squared error ``w H w^T - 2 w b^T``, up to a constant. Rounding begins by feeding each weight's error to
those that are still to come (GPTQ, Frantar et al., arXiv 2210.17323, equations 2 and 3, from the least-squares weight).
Then one weight at a time gets its best value, all others held (coordinate descent, as in QuantEase, arXiv 2309.01885).

Shapes: ``[groups, rows, d]`` of weights, codes and slopes; ``[groups, rows, 1]`` of steps and zero points.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 64  # weights that are worked on before the others hear of it


@dataclass(frozen=True)
class Grid:
    """What a weight can be: (code + zero point) * step, code in 0 .. ``largest``; 0 where it is masked.

    Attributes:
        step, zero_point: ``[groups, rows, 1]``.
        largest: of the codes.
        kept: 1 or 0, ``[groups, rows, d]``.
    """

    step: Tensor
    zero_point: Tensor
    largest: int
    kept: Tensor

    def codes(self, weight: Tensor) -> Tensor:
        """The nearest codes."""
        exact = weight / self.step - self.zero_point
        return exact.round().clamp(0, self.largest)

    def weight(self, codes: Tensor) -> Tensor:
        """What the codes stand for."""
        integers = codes + self.zero_point
        return integers * self.step * self.kept

    def columns(self, chosen: slice) -> "Grid":
        """The grid of some columns."""
        kept = self.kept[..., chosen]
        return Grid(self.step, self.zero_point, self.largest, kept)


@dataclass(frozen=True)
class QuadraticForm:
    """``w H w^T - 2 w b^T``, up to what does not depend on w.

    Attributes:
        curvature: H, ``[groups, d, d]``, positive definite.
        slope: b, ``[groups, rows, d]``.
    """

    curvature: Tensor
    slope: Tensor

    def __call__(self, weight: Tensor) -> Tensor:
        """Its value for each row, ``[groups, rows]``."""
        curved = weight @ self.curvature
        of_weights = (curved - 2 * self.slope) * weight
        return of_weights.sum(2)


def rounded_in_turn(form: QuadraticForm, grid: Grid) -> Tensor:
    """Codes of the weight that is least without a grid, each rounding's error made up for by the weights behind it.

    >>> form = QuadraticForm(torch.tensor([[[1.0, 0.9], [0.9, 1.0]]]), torch.tensor([[[0.76, 0.76]]]))
    >>> ones = torch.ones(1, 1, 1)
    >>> rounded_in_turn(form, Grid(ones, 0 * ones, 3, torch.ones(1, 1, 2)))  # 0.4, 0.4: not 0, 0
    tensor([[[0., 1.]]])
    """
    factor = torch.linalg.cholesky(form.curvature)
    solved = torch.cholesky_solve(form.slope.transpose(1, 2), factor)
    weight = solved.transpose(1, 2).contiguous()
    inverse = torch.cholesky_inverse(factor)
    upper = torch.linalg.cholesky(inverse, upper=True)
    codes = torch.empty_like(weight)
    for block in _blocks(weight):
        within = upper[:, block, block]
        errors = _block_in_turn(weight[..., block], within, grid.columns(block), codes[..., block])
        behind = slice(block.stop, None)
        weight[..., behind] -= errors @ upper[:, block, behind]
    return codes


def _block_in_turn(weight: Tensor, upper: Tensor, grid: Grid, codes: Tensor) -> Tensor:
    """Fill in the codes of one block; the errors that the weights behind it make up for."""
    errors = torch.empty_like(weight)
    for column in range(weight.shape[2]):
        here = slice(column, column + 1)
        only = grid.columns(here)
        wished = weight[..., here]
        chosen = only.codes(wished)
        missed = wished - only.weight(chosen)
        error = missed / upper[:, here, here]
        weight -= error * upper[:, here]
        codes[..., here] = chosen
        errors[..., here] = error
    return errors


def descend(form: QuadraticForm, grid: Grid, codes: Tensor) -> bool:
    """Give each weight in turn its best code while all others stay, in place; whether any moved.

    >>> form = QuadraticForm(torch.tensor([[[1.0, 0.9], [0.9, 1.0]]]), torch.tensor([[[0.76, 0.76]]]))
    >>> ones = torch.ones(1, 1, 1)
    >>> codes = torch.zeros(1, 1, 2)
    >>> descend(form, Grid(ones, 0 * ones, 3, torch.ones(1, 1, 2)), codes), codes
    (True, tensor([[[1., -0.]]]))
    """
    gradient = form.slope - grid.weight(codes) @ form.curvature
    moved = False
    for block in _blocks(codes):
        curvature = form.curvature[:, block, block].contiguous()
        of_block = gradient[..., block].contiguous()
        change = _block_descent(of_block, curvature, grid.columns(block), codes[..., block])
        if change.any():
            moved = True
            gradient -= change @ form.curvature[:, block]
    return moved


def _block_descent(gradient: Tensor, curvature: Tensor, grid: Grid, codes: Tensor) -> Tensor:
    """Move the codes of one block; by how much their weights changed."""
    before = codes.clone()
    diagonal = curvature.diagonal(dim1=1, dim2=2)[:, None]
    # Of a masked weight 0: it never moves.
    codes_per_gradient = grid.kept / (diagonal * grid.step)
    for column in range(codes.shape[2]):
        here = slice(column, column + 1)
        code = codes[..., here]
        wished = code + gradient[..., here] * codes_per_gradient[..., here]
        moved = wished.round_().clamp_(0, grid.largest)
        change = (moved - code) * grid.step
        code.copy_(moved)
        gradient.baddbmm_(change, curvature[:, here], alpha=-1)
    return (codes - before) * grid.step


def best_steps(form: QuadraticForm, grid: Grid, codes: Tensor, shared: bool = False) -> Tensor:
    """The steps that are best for the codes: w = s q has its least at s = q b^T / q H q^T.

    A row whose step would more than double, or fall below half, keeps its own: its codes are next to nothing.

    Args:
        form: what is to be small.
        grid: with the steps as they are.
        codes: ``[groups, rows, d]``.
        shared: one step for all rows.

    >>> form = QuadraticForm(torch.eye(2)[None], torch.tensor([[[1.2, 2.4]]]))
    >>> ones = torch.ones(1, 1, 1)
    >>> best_steps(form, Grid(ones, 0 * ones, 3, torch.ones(1, 1, 2)), torch.tensor([[[1.0, 2.0]]]))
    tensor([[[1.2000]]])
    """
    integers = (codes + grid.zero_point) * grid.kept
    agreement = _row_products(integers, form.slope)
    size = _row_products(integers, integers @ form.curvature)
    if shared:
        agreement = agreement.sum().expand_as(agreement)
        size = size.sum().expand_as(size)
    is_used = size > 0
    divisor = torch.where(is_used, size, 1)
    steps = agreement / divisor
    factor = steps / grid.step
    is_near = (factor > 0.5) & (factor < 2)
    return torch.where(is_used & is_near, steps, grid.step)


def _row_products(left: Tensor, right: Tensor) -> Tensor:
    """Of each row of one with that of the other, ``[groups, rows, 1]``."""
    return (left * right).sum(2, keepdim=True)


def _blocks(columns: Tensor) -> Iterator[slice]:
    """Neighbouring columns, so many at once."""
    total = columns.shape[2]
    for first in range(0, total, BLOCK):
        end = min(first + BLOCK, total)
        yield slice(first, end)
