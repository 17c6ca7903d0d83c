"""What is known of the values that one number of the network can take, through scalings, roundings and clamps."""

import math
from dataclasses import dataclass, replace

ALIGNED = 1e-4  # of a step: floats that are this close to a level stand for it
SAME_SCALE = 1e-5  # relative


@dataclass(frozen=True)
class Levels:
    """Values that are made of a number x: about ``slope x + shift``, where nothing is clamped.

    Attributes:
        low, high: the smallest and the largest value.
        step: distance between neighbouring values, None for floats.
        anchor: one value of the grid, which may lie outside ``low .. high``.
        clamps: how often the range was cut.

    >>> levels = Levels().times(4).rounded().clamped(0, 15).times(0.25)
    >>> levels.step, levels.high, levels.count, levels.bits
    (0.25, 3.75, 16, 4)
    >>> levels.stands_for(Levels(), within=ALIGNED)
    True
    """

    slope: float = 1.0
    shift: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    step: float | None = None
    anchor: float = 0.0
    clamps: int = 0

    def times(self, factor: float) -> "Levels":
        """All values times a number other than 0."""
        ends = sorted([self.low * factor, self.high * factor])
        step = self.step
        if step is not None:
            step = step * abs(factor)
        return Levels(
            slope=self.slope * factor,
            shift=self.shift * factor,
            low=ends[0],
            high=ends[1],
            step=step,
            anchor=self.anchor * factor,
            clamps=self.clamps,
        )

    def plus(self, number: float) -> "Levels":
        """All values plus a number."""
        return replace(
            self,
            shift=self.shift + number,
            low=self.low + number,
            high=self.high + number,
            anchor=self.anchor + number,
        )

    def rounded(self) -> "Levels":
        """All values rounded; a half at an end may go either way, so that it counts."""
        low = self.low
        high = self.high
        if math.isfinite(low):
            low = math.ceil(low - 0.5 - ALIGNED)
        if math.isfinite(high):
            high = math.floor(high + 0.5 + ALIGNED)
        return replace(self, low=low, high=high, step=1.0, anchor=0.0)

    def clamped(self, low: float, high: float) -> "Levels | None":
        """All values between two bounds; None where a bound cuts a grid between two of its values."""
        cut = self
        if low > self.low:
            high_end = max(self.high, low)
            cut = replace(cut, low=low, high=high_end, clamps=cut.clamps + 1)
            if not self.holds(low):
                return None
        if high < cut.high:
            low_end = min(cut.low, high)
            cut = replace(cut, low=low_end, high=high, clamps=cut.clamps + 1)
            if not self.holds(high):
                return None
        return cut

    def holds(self, value: float) -> bool:
        """Whether the grid, if there is one, goes through a value."""
        if self.step is None:
            return True
        if not math.isfinite(value):
            return False
        position = (value - self.anchor) / self.step
        return abs(position - round(position)) < ALIGNED

    @property
    def count(self) -> int | None:
        """How many values there can be, None for floats and for integers without bounds."""
        if self.step is None or not math.isfinite(self.high - self.low):
            return None
        return round((self.high - self.low) / self.step) + 1

    @property
    def bits(self) -> int | None:
        """Whole bits that hold a code of one of the values, None where they are not counted."""
        if self.count is None:
            return None
        return max(math.ceil(math.log2(self.count)), 1)

    @property
    def codes(self) -> tuple[int, int] | None:
        """Smallest and largest value in steps, None where 0 is not on the grid or nothing is counted."""
        if self.count is None or self.step is None or not self.holds(0.0):
            return None
        smallest = round(self.low / self.step)
        largest = round(self.high / self.step)
        return smallest, largest

    def stands_for(self, other: "Levels", within: float) -> bool:
        """Whether these are the values of ``other``, up to this part of a step."""
        if self.step is None:
            return False
        same_scale = math.isclose(self.slope, other.slope, rel_tol=SAME_SCALE)
        return same_scale and abs(self.shift - other.shift) <= within * self.step

    def rounds(self, other: "Levels") -> bool:
        """Whether these are the values of ``other`` rounded to the nearest level, 0 among them, and not clamped since.

        Then ``other + (self - other)`` is exact in floating point: a value and the level that it is rounded to differ
        at most by a factor of 2, where subtraction is exact (Sterbenz' lemma).
        """
        if self.step is None or other.step is not None or not self.holds(0.0):
            return False
        return self.stands_for(other, within=ALIGNED) and self.clamps == other.clamps
