"""Labels of channels: every element of an activation says which channel of which layer it is.

A label tensor has as many dimensions as its activation, of size 1 along those where the label is the same all along:
``[1, C, 1, 1]`` for what a convolution gives.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

FIXED = 0  # the label of what cannot be taken out


class Ties:
    """Labels that are handed out, and which of them stand for channels that go together or not at all."""

    def __init__(self) -> None:
        self._next = FIXED + 1
        self._pairs: list[Tensor] = []

    def new(self, count: int) -> Tensor:
        """As many labels that nothing else has, ``[count]``."""
        labels = torch.arange(self._next, self._next + count)
        self._next += count
        return labels

    def tie(self, one: Tensor, other: Tensor) -> None:
        """The channels of two label tensors, broadcast, go together element by element."""
        pairs = torch.broadcast_tensors(one, other)
        flat = torch.stack([labels.flatten() for labels in pairs])
        self._pairs.append(flat.unique(dim=1))

    def fix(self, labels: Tensor) -> None:
        """These channels stay."""
        self.tie(labels, torch.tensor(FIXED))

    def tie_along(self, labels: Tensor, dim: int) -> Tensor:
        """All that differ along ``dim`` alone go together; the labels of the first, with size 1 there."""
        first = labels.narrow(dim, 0, 1)
        if labels.size(dim) > 1:
            self.tie(first, labels)
        return first

    def classes(self) -> Tensor:
        """Label -> the smallest label that it goes with, ``[labels]``; ``FIXED`` for those that stay."""
        parents = list(range(self._next))

        def root(label: int) -> int:
            while parents[label] != label:
                parents[label] = parents[parents[label]]
                label = parents[label]
            return label

        for pairs in self._pairs:
            for one, other in pairs.t().tolist():
                smaller, larger = sorted((root(one), root(other)))
                parents[larger] = smaller
        return torch.tensor([root(label) for label in range(self._next)])


def compressed(labels: Tensor) -> Tensor:
    """Size 1 along every dimension along which the labels are the same."""
    for dim in range(labels.dim()):
        if labels.size(dim) < 2:
            continue
        first = labels.narrow(dim, 0, 1)
        if torch.equal(first.expand_as(labels), labels):
            labels = first
    return labels


def varying_dims(labels: Iterable[Tensor], dims: int) -> list[int]:
    """Dimensions, counted from the last (-1), of a result with ``dims`` dimensions along which some labels differ."""
    varying = []
    for dim in range(-dims, 0):
        sizes = [tensor.size(dim) for tensor in labels if tensor.dim() >= -dim]
        if max(sizes, default=1) > 1:
            varying.append(dim)
    return varying


def along(labels: Tensor, dim: int, count: int) -> Tensor | None:
    """The labels along one dimension, ``[count]``; None where they differ along another."""
    if varying_dims([labels.movedim(dim, -1)], labels.dim()) not in ([], [-1]):
        return None
    return labels.movedim(dim, -1).flatten().expand(count)
