"""One option for each of many layers, to lose least within a budget: the multiple-choice knapsack problem."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

BUCKETS = 20_000

Table = Sequence[Sequence[float]]  # a number for every layer and option


def allocate(
    losses: Table,
    costs: Table,
    budget: float,
    buckets: int = BUCKETS,
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
    layers = []
    for layer_losses, layer_costs in zip(losses, costs, strict=True):
        layer = _Layer(
            losses=np.asarray(layer_losses, float),
            spent=_buckets_spent(layer_costs, width, len(best)),
            cheapest_first=np.argsort(layer_costs, kind="stable"),
        )
        best = layer.added_to(best)
        layers.append(layer)
    # Back from the last layer: its option tells how many buckets were left for those before it.
    bucket = int(best.argmin())
    found = []
    for layer in reversed(layers):
        chosen = int(layer.option[bucket])
        found.append(chosen)
        bucket -= int(layer.spent[chosen])
    found.reverse()
    return found


def _buckets_spent(layer_costs: Sequence[float], width: float, beyond: int) -> np.ndarray:
    """Buckets that each option takes above the cheapest one; ``beyond`` where it does not fit."""
    costs = np.asarray(layer_costs, float)
    extra = costs - costs.min()
    if width > 0:
        exact = extra / width
        # A whole number of buckets up to rounding is that number.
        spent = np.ceil(exact - 1e-9)
    else:
        spent = np.where(extra > 0, np.inf, 0.0)
    fitting = np.minimum(spent, beyond)
    return fitting.astype(int)


@dataclass
class _Layer:
    """The options of a layer, and which of them is taken.

    Attributes:
        losses: of the options.
        spent: buckets that each takes.
        cheapest_first: the options in the order in which they are tried; of equal losses the earlier one is taken.
        option: the one taken for each sum of buckets that this layer and those before it spend, ``[buckets + 1]``.
    """

    losses: np.ndarray
    spent: np.ndarray
    cheapest_first: np.ndarray
    option: np.ndarray = field(init=False)

    def added_to(self, best: np.ndarray) -> np.ndarray:
        """The least loss for each sum of buckets with this layer too, from that of those before; sets ``option``."""
        sums = len(best)
        found = np.full(sums, np.inf)
        self.option = np.zeros(sums, int)
        for index in self.cheapest_first:
            first = self.spent[index]
            fitting = sums - first
            moved = best[:fitting] + self.losses[index]
            # Views: what is written to them is written to the whole.
            found_here = found[first:]
            option_here = self.option[first:]
            is_better = moved < found_here
            found_here[is_better] = moved[is_better]
            option_here[is_better] = index
        return found
