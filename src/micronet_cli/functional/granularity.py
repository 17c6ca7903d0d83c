"""What is dropped or kept as one: single elements, blocks, N of M, filters.

A granularity numbers the units of a weight. The importance of a unit is the mean of its elements', dropped ones being
0, so that units of different sizes can be compared (of filters and |w|: the l1 norm of Li et al., arXiv 1608.08710,
divided by the filter's size).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Units(NamedTuple):
    """The units of a weight.

    Attributes:
        importance: of each, ``[units]``.
        numbers: the unit of every element, of the weight's shape. An element with the number ``len(importance)`` is in
            none, and is kept as it is.
    """

    importance: Tensor
    numbers: Tensor


class Granularity(ABC):
    """The units of a weight ``[C_out, C_in/groups, ...]``."""

    @property
    def max_sparsity(self) -> float:
        """The most that a rule may ask for."""
        return 1.0

    @property
    def input_multiple(self) -> int:
        """What has to divide a weight's input dimension."""
        return 1

    @abstractmethod
    def count(self, shape: torch.Size) -> int:
        """Number of units of which sparsity is a fraction."""

    @abstractmethod
    def units(self, importance: Tensor, mask: Tensor) -> Units:
        """Of a weight with the elements' importance and mask, bool, True = kept."""


@dataclass(frozen=True)
class Element(Granularity):
    """Single elements (unstructured)."""

    def count(self, shape: torch.Size) -> int:
        """Number of elements."""
        return shape.numel()

    def units(self, importance: Tensor, mask: Tensor) -> Units:
        """Every element its own."""
        numbers = torch.arange(mask.numel(), device=mask.device)
        return Units(importance.flatten(), numbers.view(mask.shape))


@dataclass(frozen=True)
class Block(Granularity):
    """Blocks over the first dimensions, as the block mask of the score charges them.

    Attributes:
        shape: sizes over [C_out, C_in, ...]; dimensions that it does not name are blocked by 1. Edge blocks are
            smaller.

    >>> values, numbers = Block([2, 2]).units(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool))
    >>> values.tolist(), numbers.tolist()
    ([1.0, 1.0], [[0, 0, 1], [0, 0, 1]])
    """

    shape: Sequence[int]

    def __post_init__(self) -> None:
        are_positive = [isinstance(size, int) and size > 0 for size in self.shape]
        if not are_positive or not all(are_positive):
            raise ValueError(f"shape={list(self.shape)}: must be positive sizes, such as [4, 4]")

    def sizes(self, shape: torch.Size) -> list[int]:
        """A size for every dimension."""
        dims = len(shape)
        named = list(self.shape[:dims])
        missing = dims - len(named)
        return named + [1] * missing

    def count(self, shape: torch.Size) -> int:
        """Number of blocks."""
        grid = self._grid(shape)
        return math.prod(grid)

    def _grid(self, shape: torch.Size) -> list[int]:
        """Number of blocks along every dimension."""
        grid = []
        for length, size in zip(shape, self.sizes(shape), strict=True):
            blocks = math.ceil(length / size)
            grid.append(blocks)
        return grid

    def units(self, importance: Tensor, mask: Tensor) -> Units:
        """A block each."""
        sums = self._sums(importance * mask)
        elements = self._sums(torch.ones_like(importance))
        sizes = self.sizes(mask.shape)
        grid = self._grid(mask.shape)
        numbers = torch.zeros((), dtype=torch.long, device=mask.device)
        for dim, length in enumerate(mask.shape):
            index = torch.arange(length, device=mask.device)
            block = index // sizes[dim]
            along = [1] * mask.dim()
            along[dim] = length
            numbers = numbers * grid[dim] + block.view(along)
        means = sums / elements
        return Units(means, numbers.expand(mask.shape))

    def _sums(self, values: Tensor) -> Tensor:
        """The sum over each block: ``[units]``."""
        sizes = self.sizes(values.shape)
        grid = self._grid(values.shape)
        padding = []
        split = []
        for dim, length in enumerate(values.shape):
            blocks = grid[dim]
            size = sizes[dim]
            missing = blocks * size - length
            padding.extend([missing, 0])
            split.extend([blocks, size])
        # F.pad counts from the last dimension, the beginning of each before its end.
        padding.reverse()
        padded = F.pad(values, padding)
        by_block = padded.reshape(split)
        dims_in_a_block = tuple(range(1, len(split), 2))
        sums = by_block.sum(dims_in_a_block)
        return sums.flatten()


@dataclass(frozen=True)
class Filter(Granularity):
    """Whole output channels (rows of a linear layer)."""

    def count(self, shape: torch.Size) -> int:
        """Number of output channels."""
        return shape[0]

    def units(self, importance: Tensor, mask: Tensor) -> Units:
        """An output channel each."""
        masked = importance * mask
        by_filter = masked.flatten(1)
        values = by_filter.mean(1)
        numbers = torch.arange(len(mask), device=mask.device)
        other_dims = mask.dim() - 1
        along = [-1] + [1] * other_dims
        by_element = numbers.view(along)
        return Units(values, by_element.expand(mask.shape))


@dataclass(frozen=True)
class NM(Granularity):
    """At least N kept of every M neighbours along the input dimension (Mishra et al., arXiv 2104.08378, section 3).

    The N most important of each group are never dropped; sparsity stays a fraction of the elements, and at 1 - N/M
    every group holds exactly N.

    Attributes:
        n: kept of each group, in [1, m).
        m: elements of a group.

    >>> values, numbers = NM(2, 4).units(torch.tensor([[3.0, 1.0, 2.0, 4.0]]), torch.ones(1, 4, dtype=torch.bool))
    >>> values.tolist(), numbers.tolist()  # 2 stands for none
    ([1.0, 2.0], [[2, 0, 1, 2]])
    """

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.n < self.m:
            raise ValueError(f"n={self.n}: must be at least 1 and below m, which is {self.m}")

    @property
    def max_sparsity(self) -> float:
        """1 - N/M."""
        return 1 - self.n / self.m

    @property
    def input_multiple(self) -> int:
        """M: groups fill the input dimension."""
        return self.m

    def count(self, shape: torch.Size) -> int:
        """Number of elements."""
        return shape.numel()

    def units(self, importance: Tensor, mask: Tensor) -> Units:
        """The M - N least important elements of each group; what is dropped comes first among them."""
        spare = self.m - self.n
        kept = importance.masked_fill(~mask, -torch.inf)
        input_last = kept.movedim(1, -1)
        groups = input_last.reshape(-1, self.m)
        order = groups.argsort(dim=1, stable=True)
        rank = order.argsort(dim=1)
        group = torch.arange(len(groups), device=mask.device)
        first = group[:, None] * spare
        no_unit = len(groups) * spare
        by_group = torch.where(rank < spare, first + rank, no_unit)
        numbers = by_group.reshape(input_last.shape)
        ordered = groups.gather(1, order)
        least_important = ordered[:, :spare]
        return Units(least_important.flatten(), numbers.movedim(-1, 1))
