"""Pareto fronts."""

from collections.abc import Sequence


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[bool]:
    """Which points no other point beats: none is at most as costly and at least as good, and better in one of the two.

    Equal points are on the front together.

    >>> pareto_front([1, 2, 3, 2], [70, 80, 80, 60])
    [True, True, False, False]
    """
    points = list(zip(costs, values, strict=True))
    return [not any(_beats(other, point) for other in points) for point in points]


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether the first (cost, value) is at least as good in both and better in one."""
    cost, value = one
    return cost <= other[0] and value >= other[1] and one != other
