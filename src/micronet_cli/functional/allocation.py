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
        raise ValueError(f"a budget of at least {cheapest:.6g} is wanted, {budget:.6g} is given")
    width = (budget - cheapest) / buckets
    best = np.zeros(buckets + 1)  # [spent]: the least loss so far
    chosen = []
    for layer_losses, layer_costs in zip(losses, costs, strict=True):
        spent, best, option = _add_layer(best, np.asarray(layer_losses, float), np.asarray(layer_costs, float), width)
        chosen.append((spent, option))
    at, found = int(best.argmin()), []
    for spent, option in reversed(chosen):
        found.append(int(option[at]))
        at -= int(spent[option[at]])
    return found[::-1]


def _add_layer(
    best: np.ndarray, losses: np.ndarray, costs: np.ndarray, width: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Buckets that each option spends, and for each sum of buckets the least loss and the option it takes."""
    over = costs - costs.min()
    # A whole number of buckets up to rounding is that number.
    spent = np.ceil(over / width - 1e-9) if width > 0 else np.where(over > 0, np.inf, 0.0)
    spent = np.minimum(spent, len(best)).astype(int)
    found, option = np.full(len(best), np.inf), np.zeros(len(best), int)
    for index in np.argsort(costs, kind="stable"):
        moved = best[: len(best) - spent[index]] + losses[index]
        better = moved < found[spent[index] :]
        found[spent[index] :][better] = moved[better]
        option[spent[index] :][better] = index
    return spent, found, option
