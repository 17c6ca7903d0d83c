"""Importance criteria and exact masks. Larger importance means keep.

A criterion is a function of the masked weight; an ``Accumulated`` one gathers its scores from gradients while training.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from micronet_cli.functional.granularity import Element, Granularity

ELEMENT = Element()


def magnitude(weight: Tensor) -> Tensor:
    """Importance |w| (Han et al., arXiv 1506.02626): same shape as ``weight``."""
    return weight.abs()


def lamp(weight: Tensor) -> Tensor:
    """LAMP: w[u]^2 / sum of w[v]^2 over v that rank at or above u (Lee et al., arXiv 2010.07611, section 2.1).

    The most important weight of every layer has 1, so that one threshold over all layers empties none. Within a layer
    it ranks like the magnitude. Of equal magnitudes the earlier ranks lower. An all-zero layer has 0 everywhere.

    >>> lamp(torch.tensor([1.0, -2.0, 0.0])).tolist()
    [0.20000000298023224, 1.0, 0.0]
    """
    squares = weight.double().square().flatten()
    order = squares.argsort(stable=True)
    ranked = squares[order]
    above = ranked.flip(0).cumsum(0).flip(0)
    shares = torch.where(ranked > 0, ranked / above, 0.0)
    scores = torch.empty_like(squares)
    scores[order] = shares
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return scores.view(weight.shape).to(dtype)


@dataclass(frozen=True)
class Random:
    """Uniform random importance: the control that a criterion has to beat.

    Attributes:
        seed: same seed, same importance, on any device.
        layer: number of the layer, so that layers of one shape differ.
    """

    seed: int = 0
    layer: int = 0

    def of_layer(self, number: int) -> "Random":
        """The criterion of one layer."""
        return Random(self.seed, number)

    def __call__(self, weight: Tensor) -> Tensor:
        """Uniform in [0, 1), shape as ``weight``."""
        # The generator takes non-negative seeds; a prime keeps (seed, layer) pairs apart.
        seed = (self.seed * 1_000_003 + self.layer) % 2**63
        generator = torch.Generator().manual_seed(seed)
        # Drawn on the CPU, so that every device gets the same numbers.
        drawn = torch.rand(weight.shape, generator=generator)
        return drawn.to(weight.device)


class Accumulated(ABC):
    """A criterion gathered over training steps; its scores begin at 0."""

    @abstractmethod
    def add(self, scores: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        """The scores after one more gradient with respect to ``weight``; all of one shape."""


@dataclass(frozen=True)
class Taylor(Accumulated):
    """First-order Taylor: |w g|, the loss change when w goes (Molchanov et al., arXiv 1611.06440, section 2.2).

    Attributes:
        decay: factor in (0, 1] on the earlier sum at every step; 1 is the plain sum.

    >>> Taylor(decay=0.5).add(torch.tensor([2.0, 0.0]), torch.tensor([3.0, 1.0]), torch.tensor([-1.0, 0.5])).tolist()
    [4.0, 0.5]
    """

    decay: float = 0.99

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay={self.decay}: must be a factor in (0, 1]")

    def add(self, scores: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        """Decay * scores + |w g|."""
        return scores * self.decay + (weight * gradient).abs()


@dataclass(frozen=True)
class Movement(Accumulated):
    """Movement: -sum of w g; weights that move away from zero stay (Sanh et al., arXiv 2005.07683, section 4).

    >>> Movement().add(torch.zeros(3), torch.tensor([1.0, -1.0, 1.0]), torch.tensor([-2.0, 2.0, 2.0])).tolist()
    [2.0, 2.0, -2.0]
    """

    def add(self, scores: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        """Scores - w g."""
        return scores - weight * gradient


def shrink_mask(importance: Tensor, mask: Tensor, sparsity: float, granularity: Granularity = ELEMENT) -> Tensor:
    """The mask with exactly ``round(n * sparsity)`` dropped units, or ``mask`` itself where it already has as many.

    Args:
        importance: any shape, larger = keep.
        mask: bool of the same shape, True = kept. What it dropped stays dropped.
        sparsity: fraction of zeros in [0, 1].
        granularity: what counts as a unit.

    Ties go by index: of equal importances the earlier one is dropped.

    >>> shrink_mask(torch.tensor([1.0, 1.0, 2.0, 1.0]), torch.ones(4, dtype=torch.bool), 0.5).tolist()
    [False, False, True, True]
    """
    return shrink_masks([importance], [mask], [sparsity], granularity)[0]


def shrink_masks(
    importances: Sequence[Tensor],
    masks: Sequence[Tensor],
    sparsities: Sequence[float],
    granularity: Granularity = ELEMENT,
) -> list[Tensor]:
    """Masks of which one threshold drops ``round(sum of n_i * sparsity_i)`` units of all layers together.

    With more than one layer the best unit of each goes last of all, so that no layer is emptied.

    >>> one, two = shrink_masks(
    ...     [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])], [torch.ones(2, dtype=torch.bool)] * 2, [0.5, 0.5]
    ... )
    >>> one.tolist(), two.tolist()
    ([False, True], [False, True])
    """
    ranked = []
    unit_numbers = []
    shares = []
    for importance, mask, sparsity in zip(importances, masks, sparsities, strict=True):
        values, numbers = granularity.units(importance, mask)
        kept = kept_units(numbers, mask, len(values))
        ranked.append(values.masked_fill(~kept, -torch.inf))
        unit_numbers.append(numbers)
        shares.append(granularity.count(mask.shape) * sparsity)
    if len(masks) > 1:
        ranked = [_best_last(values) for values in ranked]
    together = torch.cat(ranked)
    # What was dropped before is among the smallest, and stays dropped where the sparsity asks for less.
    goes = smallest(together, round(sum(shares)))
    keep = (together != -torch.inf) & ~goes
    parts = keep.split([len(values) for values in ranked])
    shrunk = []
    for mask, part, numbers in zip(masks, parts, unit_numbers, strict=True):
        shrunk.append(mask & _spread(part, numbers))
    return shrunk


def regrow_mask(
    importance: Tensor, gradient: Tensor, mask: Tensor, fraction: float, granularity: Granularity = ELEMENT
) -> Tensor:
    """RigL: the least important kept units go, as many come back where |gradient| is largest (arXiv 1911.11134).

    Section 3 there: k = round(fraction * kept); drop TopK(-importance, k) of the kept, grow TopK(|g|, k) of all that
    are not kept after that. Sparsity stays as it is.

    Args:
        importance: any shape, larger = keep.
        gradient: with respect to the masked weight, at its zeros too.
        mask: bool, True = kept.
        fraction: of the kept units, in [0, 1].
        granularity: what counts as a unit; one whose units do not depend on the importance.

    Ties go by index: the earlier one is dropped, the later one grown.

    >>> kept = torch.tensor([True, True, False, False])
    >>> regrow_mask(torch.tensor([1.0, 2.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 3.0, -4.0]), kept, 0.5).tolist()
    [False, True, False, True]
    """
    values, numbers = granularity.units(importance, mask)
    kept = kept_units(numbers, mask, len(values))
    count = round(int(kept.sum()) * fraction)
    goes = smallest(values.masked_fill(~kept, torch.inf), count)
    left = kept & ~goes
    # Gradients count at the zeros too: no element is masked out of its unit.
    promise, _ = granularity.units(gradient.abs(), torch.ones_like(mask))
    promise = promise.masked_fill(left, -torch.inf)
    grown = ~smallest(promise, len(kept) - count)
    kept_elements = mask & _spread(left, numbers)
    return kept_elements | _spread(grown, numbers)


def smallest(values: Tensor, count: int) -> Tensor:
    """Where the ``count`` smallest of ``values`` ``[n]`` are; of equal ones the earlier count as smaller. Bool ``[n]``.

    >>> smallest(torch.tensor([2.0, 1.0, 2.0, 3.0]), 2).tolist()
    [True, True, False, False]
    """
    if count <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    # A selection: several times faster than sorting.
    rank = min(count, len(values))
    threshold = values.kthvalue(rank).values
    below = values < threshold
    equal = values == threshold
    missing = count - below.sum()
    earliest = equal.cumsum(0) <= missing
    return below | (equal & earliest)


def kept_units(numbers: Tensor, mask: Tensor, units: int) -> Tensor:
    """Whether a unit has a kept element: ``[units]``."""
    if units == mask.numel():  # single elements, numbered in order
        return mask.flatten()
    kept = torch.zeros(units + 1, dtype=torch.bool, device=mask.device)
    kept[numbers[mask]] = True
    return kept[:units]


def _spread(kept: Tensor, numbers: Tensor) -> Tensor:
    """From units to elements; elements in no unit are kept."""
    if len(kept) == numbers.numel():
        return kept.view(numbers.shape)
    no_unit = kept.new_ones(1)
    return torch.cat([kept, no_unit])[numbers]


def _best_last(ranked: Tensor) -> Tensor:
    """The best unit, the last of equal ones, above every unit of every layer; -inf stays dropped."""
    from_the_end = ranked.flip(0).argmax()
    best = len(ranked) - 1 - from_the_end
    is_best = torch.arange(len(ranked), device=ranked.device) == best
    return torch.where(is_best & (ranked != -torch.inf), torch.inf, ranked)
