"""Pareto fronts."""

from collections.abc import Sequence


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[bool]:
    """Which points no other point beats: none is at most as costly and at least as good, and better in one of the two.

    Equal points are on the front together.

    >>> pareto_front([1, 2, 3, 2], [70, 80, 80, 60])
    [True, True, False, False]
    """
    points = list(zip(costs, values, strict=True))
    front = []
    for point in points:
        is_beaten = any(_beats(other, point) for other in points)
        front.append(not is_beaten)
    return front


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether the first (cost, value) is at least as good in both and better in one."""
    cost, value = one
    other_cost, other_value = other
    if cost > other_cost:
        return False
    if value < other_value:
        return False
    return one != other
