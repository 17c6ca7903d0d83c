"""Exact masks from importances: the least important units go, or others come back for them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from micronet_cli.functional.granularity import Element, Granularity

ELEMENT = Element()


def shrink_mask(
    importance: Tensor,
    mask: Tensor,
    sparsity: float,
    granularity: Granularity = ELEMENT,
) -> Tensor:
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
    (shrunk,) = shrink_masks([importance], [mask], [sparsity], granularity)
    return shrunk


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
    for importance, mask in zip(importances, masks, strict=True):
        values, numbers = granularity.units(importance, mask)
        is_kept = kept_units(numbers, mask, len(values))
        kept_values = values.masked_fill(~is_kept, -torch.inf)
        ranked.append(kept_values)
        unit_numbers.append(numbers)
    if len(masks) > 1:
        ranked = [_best_last(values) for values in ranked]
    together = torch.cat(ranked)
    # What was dropped before is among the smallest, and stays dropped where the sparsity asks for less.
    was_kept = together != -torch.inf
    goes = smallest(together, _units_to_drop(masks, sparsities, granularity))
    is_kept = was_kept & ~goes
    units_by_layer = [len(values) for values in ranked]
    kept_by_layer = is_kept.split(units_by_layer)
    shrunk = []
    for mask, kept, numbers in zip(masks, kept_by_layer, unit_numbers, strict=True):
        shrunk.append(mask & _spread(kept, numbers))
    return shrunk


def sparsity_of(mask: Tensor) -> float:
    """The fraction of a mask that is dropped, in [0, 1].

    >>> sparsity_of(torch.tensor([True, False, True, True]))
    0.25
    """
    dropped = ~mask
    return float(dropped.double().mean())


def _units_to_drop(
    masks: Sequence[Tensor],
    sparsities: Sequence[float],
    granularity: Granularity,
) -> int:
    """Of all layers together."""
    shares = []
    for mask, sparsity in zip(masks, sparsities, strict=True):
        units = granularity.count(mask.shape)
        shares.append(units * sparsity)
    return round(sum(shares))


def regrow_mask(
    importance: Tensor,
    gradient: Tensor,
    mask: Tensor,
    fraction: float,
    granularity: Granularity = ELEMENT,
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
    units = len(values)
    is_kept = kept_units(numbers, mask, units)
    kept_count = int(is_kept.sum())
    count = round(kept_count * fraction)
    candidates = values.masked_fill(~is_kept, torch.inf)
    goes = smallest(candidates, count)
    is_left = is_kept & ~goes
    # Gradients count at the zeros too: no element is masked out of its unit.
    everything = torch.ones_like(mask)
    promise, _ = granularity.units(gradient.abs(), everything)
    promise = promise.masked_fill(is_left, -torch.inf)
    is_grown = ~smallest(promise, units - count)
    kept_elements = mask & _spread(is_left, numbers)
    grown_elements = _spread(is_grown, numbers)
    return kept_elements | grown_elements


def smallest(values: Tensor, count: int) -> Tensor:
    """Where the ``count`` smallest of ``values`` ``[n]`` are; of equal ones the earlier count as smaller. Bool ``[n]``.

    >>> smallest(torch.tensor([2.0, 1.0, 2.0, 3.0]), 2).tolist()
    [True, True, False, False]
    """
    if count <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    # A selection: several times faster than sorting.
    rank = min(count, len(values))
    threshold, _ = values.kthvalue(rank)
    below = values < threshold
    equal = values == threshold
    missing = count - below.sum()
    number_of_equals = equal.cumsum(0)
    earliest = equal & (number_of_equals <= missing)
    return below | earliest


def kept_units(numbers: Tensor, mask: Tensor, units: int) -> Tensor:
    """Whether a unit has a kept element: ``[units]``."""
    if units == mask.numel():  # single elements, numbered in order
        return mask.flatten()
    kept = torch.zeros(units + 1, dtype=torch.bool, device=mask.device)
    # An index of booleans would wait for a GPU; what is dropped counts for the place that is left out.
    of_kept_elements = torch.where(mask, numbers, units)
    kept.index_fill_(0, of_kept_elements.flatten(), True)
    return kept[:units]


def _spread(kept: Tensor, numbers: Tensor) -> Tensor:
    """From units to elements; elements in no unit are kept."""
    if len(kept) == numbers.numel():
        return kept.view(numbers.shape)
    no_unit = kept.new_ones(1)
    by_number = torch.cat([kept, no_unit])
    return by_number[numbers]


def _best_last(ranked: Tensor) -> Tensor:
    """The best unit, the last of equal ones, above every unit of every layer; -inf stays dropped."""
    units = len(ranked)
    from_the_end = ranked.flip(0).argmax()
    best = units - 1 - from_the_end
    number = torch.arange(units, device=ranked.device)
    is_kept = ranked != -torch.inf
    goes_last = is_kept & (number == best)
    return torch.where(goes_last, torch.inf, ranked)
