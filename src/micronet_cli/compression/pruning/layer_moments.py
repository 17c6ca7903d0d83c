"""What the inputs of a layer in two networks say about its weight, as second moments."""

from dataclasses import dataclass

import torch
from torch import Tensor

from micronet_cli.functional.second_order import damped
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
        shrinkage: how far the Hessian would best be drawn towards a multiple of the identity, for so few images, in
            [0, 1); ``[groups]``.
    """

    hessian: Tensor
    cross: Tensor
    change: float
    size: float
    shrinkage: Tensor

    @classmethod
    def of(cls, weight: Tensor, rows: Tensor, other_rows: Tensor, images: int) -> "Moments":
        """For ``weight`` ``[C_out, ...]``, over rows x and x', ``[groups, n, d]`` each, which follow the images."""
        groups, count, _ = rows.shape
        outputs = product(rows, weight)
        changes = outputs - product(other_rows, weight)
        by_group = changes.unflatten(0, (groups, -1))
        columns = other_rows.transpose(1, 2)
        hessian = torch.bmm(columns, other_rows) / count
        return cls(
            hessian=hessian,
            cross=torch.bmm(by_group, other_rows) / count,
            change=_sum_of_squares(changes) / count,
            size=_sum_of_squares(outputs) / count,
            shrinkage=_shrinkage(hessian, other_rows, images),
        )

    def damped_hessian(self, dampening: float) -> Tensor:
        """The Hessian for so few images, damped by ``dampening`` at least; float64."""
        # (1 - s) H + s m I is damped by s / (1 - s), but for the factor 1 - s.
        drawn = self.shrinkage / (1 - self.shrinkage)
        return damped(self.hessian, drawn.clamp(min=dampening))

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
        groups = len(self.hessian)
        rows = weight.flatten(1)
        return rows.unflatten(0, (groups, -1))


def _sum_of_squares(outputs: Tensor) -> float:
    return float(outputs.square().sum())


def _shrinkage(hessian: Tensor, rows: Tensor, images: int) -> Tensor:
    """min(1, E|H_i - H|^2 / images / |H - m I|^2), with m the mean of H's diagonal (Ledoit and Wolf 2004, section 3.2).

    The rows of an image are alike, so it is the images that are counted as independent, not the rows.

    Args:
        hessian: H = E[x x^T] over the rows, ``[groups, d, d]``; H_i is that of an image.
        rows: x, ``[groups, n, d]``.
        images: that they are from.
    """
    inputs = rows.shape[2]
    square = hessian.square().sum((1, 2))
    trace = hessian.diagonal(dim1=1, dim2=2).sum(1)
    deviation = _mean_square(rows, images) - square
    noise = deviation / images
    tiny = torch.finfo(hessian.dtype).tiny
    distance = square - trace.square() / inputs
    share = noise / distance.clamp(min=tiny)
    return share.clamp(0, MOST_SHRINKAGE)


def _mean_square(rows: Tensor, images: int) -> Tensor:
    """The mean of |H_i|^2 over the images, ``[groups]``; X X^T has the same norm as X^T X, and may be smaller."""
    groups, count, inputs = rows.shape
    per_image = count // images
    total = rows.new_zeros(groups)
    for own in rows.split(per_image, dim=1):
        columns = own.transpose(1, 2)
        products = own @ columns if per_image < inputs else columns @ own
        total += products.square().sum((1, 2))
    return total / (images * per_image**2)
