"""One option for each of many layers, to lose least within a budget: the multiple-choice knapsack problem."""

from collections.abc import Sequence

import numpy as np

BUCKETS = 20_000


def allocate(
    losses: Sequence[Sequence[float]], costs: Sequence[Sequence[float]], budget: float, buckets: int = BUCKETS
) -> list[int]:
    """The options with the smallest sum of losses whose costs sum to at most ``budget``, by dynamic programming.

    What remains of the budget after every layer's cheapest option is cut into ``buckets``, and costs are rounded up to
    them: the budget holds, and it is missed by at most a bucket a layer (SPDY, Frantar and Alistarh, arXiv 2201.13096,
    section 3.1).

    Args:
        losses: for every layer those of its options, any finite numbers.
        costs: the same for what they cost.
        budget: the largest sum of costs.
        buckets: resolution of the budget.

    Returns:
        The index of each layer's option. Of equal losses the cheaper one, then the earlier one.

    Raises:
        ValueError: even the cheapest options cost more.

    >>> allocate([[0, 1, 4], [0, 1, 3]], [[10, 6, 2], [10, 6, 2]], 12)
    [1, 1]
    """
    cheapest = sum(min(options) for options in costs)
    if cheapest > budget:
        raise ValueError(
            f"the budget must be at least {cheapest:.6g}, which the cheapest options cost, but it is {budget:.6g}"
        )
    width = (budget - cheapest) / buckets
    best = np.zeros(buckets + 1)  # [spent]: the least loss so far
    choices = []
    for layer_losses, layer_costs in zip(losses, costs, strict=True):
        losses_here = np.asarray(layer_losses, float)
        spent = _buckets_spent(np.asarray(layer_costs, float), width, len(best))
        best, option = _add_layer(best, losses_here, spent, np.argsort(layer_costs, kind="stable"))
        choices.append((spent, option))
    # Back from the last layer: its option tells how many buckets were left for those before it.
    bucket = int(best.argmin())
    found = []
    for spent, option in reversed(choices):
        chosen = int(option[bucket])
        found.append(chosen)
        bucket -= int(spent[chosen])
    return found[::-1]


def _buckets_spent(costs: np.ndarray, width: float, beyond: int) -> np.ndarray:
    """Buckets that each option takes above the cheapest one; ``beyond`` where it does not fit."""
    extra = costs - costs.min()
    # A whole number of buckets up to rounding is that number.
    spent = np.ceil(extra / width - 1e-9) if width > 0 else np.where(extra > 0, np.inf, 0.0)
    return np.minimum(spent, beyond).astype(int)


def _add_layer(
    best: np.ndarray, losses: np.ndarray, spent: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each sum of buckets the least loss with one more layer, and the option of that layer that gives it.

    Args:
        best: least loss of the layers before, ``[buckets + 1]``.
        losses: of the layer's options.
        spent: buckets that each option takes.
        order: the options; of equal losses the earlier one in it is taken.
    """
    found = np.full(len(best), np.inf)
    option = np.zeros(len(best), int)
    for index in order:
        first = spent[index]
        moved = best[: len(best) - first] + losses[index]
        better = moved < found[first:]
        found[first:][better] = moved[better]
        option[first:][better] = index
    return found, option
