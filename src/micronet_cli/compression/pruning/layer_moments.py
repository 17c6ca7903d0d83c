"""What the inputs of a layer in two networks say about its weight, as second moments."""

from dataclasses import dataclass

import torch
from torch import Tensor

from micronet_cli.trace.layer_inputs import product


@dataclass(frozen=True)
class Moments:
    """Of a layer with weight W that reads x in one network and x' in the other.

    Attributes:
        hessian: E[x' x'^T], ``[groups, d, d]``.
        cross: E[(W x - W x') x'^T], ``[groups, C_out / groups, d]``.
        change: E|W x - W x'|^2.
        size: E|W x|^2.
    """

    hessian: Tensor
    cross: Tensor
    change: float
    size: float

    @classmethod
    def of(cls, weight: Tensor, rows: Tensor, other_rows: Tensor) -> "Moments":
        """Over rows x and x', ``[groups, n, d]`` each, for ``weight`` ``[C_out, ...]``."""
        groups, count, _ = rows.shape
        outputs = product(rows, weight)
        changes = outputs - product(other_rows, weight)
        by_group = changes.unflatten(0, (groups, -1))
        return cls(
            hessian=torch.bmm(other_rows.transpose(1, 2), other_rows) / count,
            cross=torch.bmm(by_group, other_rows) / count,
            change=float(changes.square().sum()) / count,
            size=float(outputs.square().sum()) / count,
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
