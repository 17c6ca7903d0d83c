"""What the inputs of a layer in two networks say about its weight, as second moments."""

from dataclasses import dataclass

import torch
from torch import Tensor

from micronet_cli.trace.layer_inputs import product

MOST_SHRINKAGE = 0.99


@dataclass(frozen=True)
class Moments:
    """Of a layer with weight W that reads x in one network and x' in the other.

    Attributes:
        hessian: E[x' x'^T], ``[groups, d, d]``.
        cross: E[(W x - W x') x'^T], ``[groups, C_out / groups, d]``.
        change: E|W x - W x'|^2.
        size: E|W x|^2.
        shrinkage: how far the Hessian would best be drawn towards a multiple of the identity, for so few rows, in
            [0, 1); ``[groups]``.
    """

    hessian: Tensor
    cross: Tensor
    change: float
    size: float
    shrinkage: Tensor

    @classmethod
    def of(cls, weight: Tensor, rows: Tensor, other_rows: Tensor) -> "Moments":
        """Over rows x and x', ``[groups, n, d]`` each, for ``weight`` ``[C_out, ...]``."""
        groups, count, _ = rows.shape
        outputs = product(rows, weight)
        changes = outputs - product(other_rows, weight)
        by_group = changes.unflatten(0, (groups, -1))
        hessian = torch.bmm(other_rows.transpose(1, 2), other_rows) / count
        return cls(
            hessian=hessian,
            cross=torch.bmm(by_group, other_rows) / count,
            change=float(changes.square().sum()) / count,
            size=float(outputs.square().sum()) / count,
            shrinkage=_shrinkage(hessian, other_rows),
        )

    def nearest_weight(self, weight: Tensor, hessian: Tensor) -> Tensor:
        """The dense W* that minimises E|W x - W* x'|^2, like ``weight`` where ``hessian`` is damped: W + cross H^-1."""
        shift = torch.linalg.solve(hessian, self.cross.double(), left=False)
        nearest = weight.double() + shift.view(weight.shape)
        return nearest.to(weight.dtype)

    def error(self, weight: Tensor, other: Tensor) -> float:
        """E|W x - W' x'|^2 / E|W x|^2 for W' = ``other``; the change itself where W x is always 0."""
        difference = self._by_group(weight - other)
        curvature = torch.bmm(difference, self.hessian)
        added = (curvature + 2 * self.cross) * difference
        error = self.change + float(added.sum())
        return error / (self.size or 1.0)

    def _by_group(self, weight: Tensor) -> Tensor:
        """``[C_out, ...] -> [groups, C_out / groups, d]``."""
        rows = weight.flatten(1)
        return rows.unflatten(0, (len(self.hessian), -1))


def _shrinkage(hessian: Tensor, rows: Tensor) -> Tensor:
    """min(1, E|x x^T - H|^2 / n / |H - m I|^2), with m the mean of H's diagonal (Ledoit and Wolf 2004, section 3.2).

    Args:
        hessian: H = E[x x^T] over the rows, ``[groups, d, d]``.
        rows: x, ``[groups, n, d]``.
    """
    _, count, inputs = rows.shape
    fourth = rows.square().sum(2).square().mean(1)  # E|x|^4
    square = hessian.square().sum((1, 2))
    trace = hessian.diagonal(dim1=1, dim2=2).sum(1)
    noise = (fourth - square) / count
    distance = square - trace.square() / inputs
    share = noise / distance.clamp(min=torch.finfo(hessian.dtype).tiny)
    return share.clamp(0, MOST_SHRINKAGE)
