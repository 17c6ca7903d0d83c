"""The knapsack, by hand and against all combinations."""

import itertools
import random

import pytest

from micronet_cli.functional.allocation import allocate

# Two layers, three options each: (loss, cost) = (0, 10), (1, 6), (4, 2) and (0, 10), (2, 6), (3, 2).
LOSSES, COSTS = [[0, 1, 4], [0, 2, 3]], [[10, 6, 2], [10, 6, 2]]


TWO_LAYERS = {
    "all fits": (20, [0, 0]),
    "16 for a loss of 1, the other way round 2": (19.9, [1, 0]),
    "just enough for 16": (16.1, [1, 0]),
    "12 for a loss of 3, as good as [1, 1]": (15, [0, 2]),
    "8 for a loss of 4, where [2, 1] loses 6": (8.1, [1, 2]),
    "not enough for 8": (7.9, [2, 2]),
    "the least there is": (4, [2, 2]),
}


@pytest.mark.parametrize(("budget", "options"), TWO_LAYERS.values(), ids=TWO_LAYERS.keys())
def test_two_layers_by_hand(budget, options):
    found = allocate(LOSSES, COSTS, budget)
    assert sum(COSTS[layer][option] for layer, option in enumerate(found)) <= budget
    assert sum(LOSSES[layer][option] for layer, option in enumerate(found)) == sum(
        LOSSES[layer][option] for layer, option in enumerate(options)
    )


def test_too_small_a_budget_names_the_least():
    with pytest.raises(ValueError, match="at least 4, which"):
        allocate(LOSSES, COSTS, 3.9)


def test_an_option_that_costs_more_and_gains_nothing_is_not_taken():
    assert allocate([[1, 1, 1]], [[3, 2, 2]], 100) == [1]


def test_no_layers_and_one_option():
    assert allocate([], [], 0) == []
    assert allocate([[5]], [[7]], 7) == [0]


def test_negative_losses_are_gains():
    assert allocate([[0, -1]], [[1, 2]], 2) == [1]


@pytest.mark.parametrize("seed", range(20))
def test_as_good_as_trying_all(seed):
    rng = random.Random(seed)
    losses = [[rng.random() for _ in range(3)] for _ in range(5)]
    costs = [[rng.randint(1, 9) for _ in range(3)] for _ in range(5)]
    budget = rng.randint(sum(map(min, costs)), sum(map(max, costs)))

    def total(options, table):
        return sum(row[option] for row, option in zip(table, options, strict=True))

    best = min(
        total(options, losses) for options in itertools.product(range(3), repeat=5) if total(options, costs) <= budget
    )
    # Whole costs fall on the buckets where their number is a multiple of what is left to spend.
    found = allocate(losses, costs, budget, buckets=1000 * max(1, budget - sum(map(min, costs))))
    assert total(found, losses) == pytest.approx(best)
    assert total(found, costs) <= budget
