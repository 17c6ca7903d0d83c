"""One quantiser that is written out in operators: the values on the way to codes, and what they stand for."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from micronet_cli.functional.levels import ALIGNED, Levels
from micronet_cli.trace.layouts import Read
from micronet_cli.trace.records import FLOAT_BITS


@dataclass(frozen=True)
class Point:
    """A value on the way to the first rounding.

    Attributes:
        value: its index.
        read: it as the next step read it, None where views between steps may have changed the places of its elements.
        levels: of it.
        step: number of steps that made it.
    """

    value: int
    read: Read | None
    levels: Levels
    step: int


@dataclass(frozen=True)
class Conversion:
    """What is made of values on the way to codes and back.

    Attributes:
        made: what was made by now.
        points: the values before the first rounding, from the one with which scaling begins.
        levels: of ``made``.
        steps: operations that made it, as indices.
        stands_for: number of the point that these are the levels of, None where they are of none.
        reachable: number of points that they may still become the levels of.
    """

    made: Read
    points: tuple[Point, ...]
    levels: Levels
    steps: tuple[int, ...] = ()
    stands_for: int | None = None
    reachable: int = 0

    @classmethod
    def beginning(cls, read: Read, low: float = -math.inf, high: float = math.inf) -> "Conversion":
        """Nothing was made of the value, which lies between bounds."""
        levels = Levels(low=low, high=high)
        point = Point(read.value, read, levels, 0)
        return cls(read, (point,), levels)

    @property
    def is_quantized(self) -> bool:
        """Whether it holds codes of a value, or codes that were scaled back to what they stand for."""
        bits = self.levels.bits
        return bits is not None and bits < FLOAT_BITS and self.stands_for is not None

    @property
    def origin(self) -> int:
        """The value that is quantised."""
        return self._first.value

    @property
    def own_steps(self) -> tuple[int, ...]:
        """The steps that quantise it."""
        return self.steps[self._first.step :]

    @property
    def _first(self) -> Point:
        assert self.stands_for is not None
        return self.points[self.stands_for]

    def seen_as(self, read: Read) -> "Conversion":
        """The same in a view: behind another one than what was made, elements of the points are in other places."""
        if read == self.made:
            return self
        points = [replace(point, read=None) for point in self.points]
        return replace(self, made=read, points=tuple(points))

    def followed_by(self, step: int, levels: Levels, made: Read) -> "Conversion":
        """With one operation more, which made a value with these levels."""
        steps = (*self.steps, step)
        if levels.step is None:
            point = Point(made.value, made, levels, len(steps))
            return Conversion(made, (*self.points, point), levels, steps)
        reachable = self._reachable(levels)
        found = _first_that(levels, self.points[:reachable])
        return Conversion(made, self.points, levels, steps, found, reachable)

    def _reachable(self, levels: Levels) -> int:
        """Of how many points the next levels may be: each scaling back must lead to an earlier one."""
        if self.levels.step is None:
            return len(self.points)
        if self.stands_for is None:
            return self.reachable
        is_scaled = (levels.slope, levels.shift) != (self.levels.slope, self.levels.shift)
        return self.stands_for if is_scaled else self.stands_for + 1


def _first_that(levels: Levels, points: Sequence[Point]) -> int | None:
    """Number of the first point that these are the levels of, or that they lie half a step beside."""
    for within in (ALIGNED, 0.5 + ALIGNED):
        for number, point in enumerate(points):
            if levels.stands_for(point.levels, within):
                return number
    return None
