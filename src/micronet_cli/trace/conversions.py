"""Quantisers that are written out in operators: which values a rounding and a clamp leave with few levels.

Every activation is followed from the value where scaling begins, through scalings and shifts by one number, clamps and
roundings, to the value that stands for the first one again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from micronet_cli.functional.levels import ALIGNED, Levels
from micronet_cli.trace.records import FLOAT_BITS, ExecutedQuantizer

# [T] scales and zero points are stored: one of each for an activation, at 32 bits.
ACTIVATION_QPARAMS_BITS = 64
# Outputs of these functions lie between bounds; they are executed all the same.
RANGES = {"relu": (0.0, math.inf), "sigmoid": (0.0, 1.0), "hardsigmoid": (0.0, 1.0)}
COPIES = frozenset({"clone", "contiguous"})
ABOVE = frozenset({"gt", "ge"})
BELOW = frozenset({"lt", "le"})
ARITHMETIC = frozenset({"mul", "div", "true_divide", "add", "sub", "rsub"})
COMMUTING = frozenset({"mul", "add", "minimum", "maximum"})
FROM_ABOVE = frozenset({"clamp_max", "minimum"})
CLAMPS = frozenset({"clamp", "clamp_min", "hardtanh", "maximum", *FROM_ABOVE})
# The kinds that may be part of a conversion.
FOLLOWED = ARITHMETIC | CLAMPS | COPIES | RANGES.keys() | ABOVE | BELOW | {"round", "where"}


@dataclass(frozen=True)
class Operand:
    """An operand of an element-wise operation.

    Attributes:
        value: index of the activation, None for a constant.
        number: the constant, None for an activation and for a tensor of several numbers.
    """

    value: int | None = None
    number: float | None = None


@dataclass(frozen=True)
class Point:
    """A value on the way to the first rounding.

    Attributes:
        value: its index.
        levels: of it.
        step: number of steps that made it.
    """

    value: int
    levels: Levels
    step: int


@dataclass(frozen=True)
class Conversion:
    """What is made of values on the way to codes and back.

    Attributes:
        points: the values before the first rounding, from the one with which scaling begins.
        levels: of what was made by now.
        steps: operations that made it, as indices.
        stands_for: number of the point that these are the levels of, None where they are of none.
    """

    points: tuple[Point, ...]
    levels: Levels
    steps: tuple[int, ...] = ()
    stands_for: int | None = None

    @classmethod
    def beginning(cls, value: int, low: float = -math.inf, high: float = math.inf) -> "Conversion":
        """Nothing was made of the value, which lies between bounds."""
        levels = Levels(low=low, high=high)
        return cls((Point(value, levels, 0),), levels)

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

    def followed_by(self, step: int, levels: Levels, made: int) -> "Conversion":
        """With one operation more, which made a value with these levels."""
        steps = (*self.steps, step)
        if levels.step is None:
            point = Point(made, levels, len(steps))
            return Conversion((*self.points, point), levels, steps)
        found = self.stands_for
        if found is None or levels != self.levels:
            found = self._point_of(levels)
        return Conversion(self.points, levels, steps, found)

    def _point_of(self, levels: Levels) -> int | None:
        """The first point that these are the levels of; each scaling back must lead to an earlier one."""
        end = len(self.points)
        if self.stands_for is not None and self.levels.count is not None:
            end = self.stands_for
            if (levels.slope, levels.shift) == (self.levels.slope, self.levels.shift):
                end += 1
        for within in (ALIGNED, 0.5 + ALIGNED):
            for number in range(end):
                if levels.stands_for(self.points[number].levels, within):
                    return number
        return None


@dataclass(frozen=True)
class _Difference:
    """What straight-through estimators add: ``minuend - value``, to be added to ``value``; None for ``value`` itself."""

    value: int
    minuend: Conversion | None
    steps: tuple[int, ...]


@dataclass(frozen=True)
class _Comparison:
    """Where a value is above (or else below) a number."""

    value: int
    number: float
    is_above: bool
    step: int


class Conversions:
    """Follows activations as their operations are recorded.

    Attributes:
        quantized: value that a conversion ends in -> the conversion.
        quantizers: name -> the quantiser that a conversion is.
    """

    def __init__(self) -> None:
        self.quantized: dict[int, Conversion] = {}
        self.quantizers: dict[str, ExecutedQuantizer] = {}
        self._followed: dict[int, Conversion] = {}
        self._differences: dict[int, _Difference] = {}
        self._comparisons: dict[int, _Comparison] = {}

    def see(self, kind: str, operands: Sequence[Operand], step: int, made: int, layer: str) -> str | None:
        """The name of the quantiser that ends with this operation, None where none does.

        Args:
            kind: member of ``FOLLOWED``.
            operands: in the operator's order; those left out are constants without a number.
            step: index of the operation.
            made: index of the value that it makes.
            layer: the module that executes it.
        """
        conversion = self._through(kind, operands, step, made)
        if conversion is None:
            return None
        self._followed[made] = conversion
        if not conversion.is_quantized:
            return None
        self.quantized[made] = conversion
        levels = conversion.levels
        assert levels.bits is not None
        return self.add(f"{layer}.quantizer{made}", layer, levels.bits, ACTIVATION_QPARAMS_BITS, levels.codes)

    def add(
        self, name: str, layer: str, bits: int, stored_bits: int, codes: tuple[int, int] | None = None
    ) -> str:
        """Take a quantiser; see ``ExecutedQuantizer``. Its name."""
        self.quantizers[name] = ExecutedQuantizer(name, layer, bits, stored_bits, codes)
        return name

    def _through(self, kind: str, operands: Sequence[Operand], step: int, made: int) -> Conversion | None:
        values = [operand.value for operand in operands if operand.value is not None]
        if kind == "where":
            return self._chosen(operands, step, made)
        if len(values) == 2 and kind in ("add", "sub"):
            return self._straight_through(kind, values, step, made)
        if len(values) != 1:
            return None
        (value,) = values
        number_first = operands[0].value is None
        if number_first and kind not in COMMUTING:
            return None
        numbers = [operand.number for operand in operands if operand.value is None]
        if kind in RANGES:
            return Conversion.beginning(made, *RANGES[kind])
        if kind in ABOVE | BELOW:
            if numbers[0] is not None:
                self._comparisons[made] = _Comparison(value, numbers[0], kind in ABOVE, step)
            return None
        before = self._begin(value)
        if kind == "hardtanh" and before.levels.step is None:
            # An activation function of its own: what is rounded later begins behind it.
            return Conversion.beginning(made, *_bounds(kind, numbers))
        levels = _after(before.levels, kind, numbers)
        if levels is None:
            return None
        return before.followed_by(step, levels, made)

    def _begin(self, value: int) -> Conversion:
        """What was made on the way to a value."""
        return self._followed.get(value, Conversion.beginning(value))

    def _straight_through(self, kind: str, values: Sequence[int], step: int, made: int) -> Conversion | None:
        """``x + (q - x)`` and ``(x - x) + q`` are q, where floating point makes no difference between them."""
        one, other = values
        if kind == "sub":
            difference = self._difference(one, other, step)
            if difference is not None:
                self._differences[made] = difference
            return None
        for value, addend in ((one, other), (other, one)):
            difference = self._differences.get(addend)
            if difference is None:
                continue
            sum_of = difference.minuend
            if sum_of is None:
                sum_of = self._followed.get(value)
            elif difference.value != value:
                continue
            if sum_of is not None:
                steps = (*sum_of.steps, *difference.steps, step)
                return replace(sum_of, steps=steps)
        return None

    def _difference(self, minuend: int, subtrahend: int, step: int) -> _Difference | None:
        if minuend == subtrahend:
            return _Difference(subtrahend, None, (step,))
        conversion = self._begin(minuend)
        for point in conversion.points:
            if point.value == subtrahend and conversion.levels.rounds(point.levels):
                return _Difference(subtrahend, conversion, (step,))
        return None

    def _chosen(self, operands: Sequence[Operand], step: int, made: int) -> Conversion | None:
        """``where(x > c, c, x)`` is a clamp."""
        condition, chosen, otherwise = operands
        if condition.value is None or otherwise.value is None or chosen.number is None:
            return None
        comparison = self._comparisons.get(condition.value)
        if comparison is None or (comparison.value, comparison.number) != (otherwise.value, chosen.number):
            return None
        kind = "minimum" if comparison.is_above else "maximum"
        before = self._begin(otherwise.value)
        levels = _after(before.levels, kind, [chosen.number])
        if levels is None:
            return None
        before = replace(before, steps=(*before.steps, comparison.step))
        return before.followed_by(step, levels, made)


def _after(levels: Levels, kind: str, numbers: Sequence[float | None]) -> Levels | None:
    """The levels behind one more operation, None where it is no part of a conversion."""
    if kind in COPIES:
        return levels
    if kind == "round":
        return levels.rounded()
    if kind in ARITHMETIC:
        return _shifted_or_scaled(levels, kind, numbers[0])
    clamped = levels.clamped(*_bounds(kind, numbers))
    if levels.count is not None and clamped != levels:
        return None  # codes that are clamped once more: another operation on them
    return clamped


def _shifted_or_scaled(levels: Levels, kind: str, number: float | None) -> Levels | None:
    """After arithmetic with one number."""
    if number is None:
        return None
    if kind == "add":
        return levels.plus(number)
    if kind == "sub":
        return levels.plus(-number)
    if kind == "rsub":
        return levels.times(-1).plus(number)
    if number == 0:
        return None
    if kind == "mul":
        return levels.times(number)
    return levels.times(1 / number)


def _bounds(kind: str, numbers: Sequence[float | None]) -> tuple[float, float]:
    """Smallest and largest value behind a clamp."""
    if kind in FROM_ABOVE:
        numbers = [None, *numbers]
    low = -math.inf
    high = math.inf
    if numbers[0] is not None:
        low = numbers[0]
    if len(numbers) > 1 and numbers[1] is not None:
        high = numbers[1]
    return low, high
