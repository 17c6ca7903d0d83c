"""Pareto fronts, by hand: costs fall, values rise."""

import pytest

from micronet_cli.functional.pareto import pareto_front

FRONTS = {
    "empty": ([], [], []),
    "one point": ([3], [1], [True]),
    "a chain of trade-offs": ([1, 2, 3], [10, 20, 30], [True, True, True]),
    "same cost, the better value wins": ([1, 1], [10, 20], [False, True]),
    "same value, the lower cost wins": ([2, 1], [10, 10], [False, True]),
    "equal points stay together": ([1, 1, 2], [5, 5, 5], [True, True, False]),
    "one beats all": ([1, 2, 3], [9, 8, 7], [True, False, False]),
    "negative numbers": ([-2, -1], [-5, -6], [True, False]),
    "infinite cost": ([float("inf"), 1], [2, 1], [True, True]),
}


@pytest.mark.parametrize(("costs", "values", "front"), FRONTS.values(), ids=FRONTS.keys())
def test_pareto_front_by_hand(costs, values, front):
    assert pareto_front(costs, values) == front


def test_pareto_front_does_not_depend_on_the_order():
    points = [(1, 4), (2, 4), (2, 6), (3, 5), (5, 9)]
    forward = pareto_front(*zip(*points, strict=True))
    backward = pareto_front(*zip(*reversed(points), strict=True))
    assert forward == backward[::-1] == [True, False, True, False, True]


def test_pareto_front_of_unequal_lengths_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        pareto_front([1, 2], [3])
