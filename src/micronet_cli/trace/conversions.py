"""Quantisers that are written out in operators: which values a rounding and a clamp leave with few levels.

Every activation is followed from the value where scaling begins, through scalings and shifts by one number, clamps and
roundings, to the value that stands for the first one again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from micronet_cli.functional.levels import ALIGNED, Levels
from micronet_cli.trace.layouts import Read
from micronet_cli.trace.records import FLOAT_BITS, ExecutedQuantizer

# [T] scales and zero points are stored: one of each for an activation, at 32 bits.
ACTIVATION_QPARAMS_BITS = 64
# Outputs of these functions lie between bounds; they are executed all the same.
RANGES = {"relu": (0.0, math.inf), "sigmoid": (0.0, 1.0), "hardsigmoid": (0.0, 1.0)}
COPIES = frozenset({"clone", "contiguous"})
ABOVE = frozenset({"gt", "ge"})
COMPARISONS = ABOVE | {"lt", "le"}
ARITHMETIC = frozenset({"mul", "div", "true_divide", "add", "sub", "rsub"})
COMMUTING = frozenset({"mul", "add", "minimum", "maximum"})
FROM_ABOVE = frozenset({"clamp_max", "minimum"})
CLAMPS = frozenset({"clamp", "clamp_min", "hardtanh", "maximum", *FROM_ABOVE})
# The kinds that may be part of a conversion.
FOLLOWED = ARITHMETIC | CLAMPS | COPIES | RANGES.keys() | COMPARISONS | {"round", "where"}


@dataclass(frozen=True)
class Operand:
    """An operand of an element-wise operation.

    Attributes:
        read: the activation, None for a constant.
        number: the constant, None for an activation and for one that was left out.
    """

    read: Read | None = None
    number: float | None = None


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


@dataclass(frozen=True)
class _Difference:
    """What straight-through estimators add: ``minuend - read``, to be added to ``read``; no minuend: ``read`` itself."""

    made: Read
    read: Read
    minuend: Conversion | None
    step: int


@dataclass(frozen=True)
class _Comparison:
    """Where a value is above (or else below) a number."""

    made: Read
    read: Read
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

    def see(self, kind: str, operands: Sequence[Operand], step: int, made: Read, layer: str) -> str | None:
        """The name of the quantiser that ends with this operation, None where none does.

        Args:
            kind: member of ``FOLLOWED``.
            operands: in the operator's order.
            step: index of the operation.
            made: the value that it makes.
            layer: the module that executes it.
        """
        conversion = self._through(kind, operands, step, made)
        if conversion is None:
            return None
        self._followed[made.value] = conversion
        if not conversion.is_quantized:
            return None
        self.quantized[made.value] = conversion
        levels = conversion.levels
        assert levels.bits is not None
        return self.add_activation(made.value, layer, levels.bits, levels.codes)

    def add_activation(self, value: int, layer: str, bits: int, codes: tuple[int, int] | None) -> str:
        """Take a quantiser that makes a value; its name."""
        name = f"{layer}.quantizer{value}"
        return self.add(ExecutedQuantizer(name, layer, bits, ACTIVATION_QPARAMS_BITS, codes))

    def add(self, quantizer: ExecutedQuantizer) -> str:
        """Take a quantiser; its name."""
        self.quantizers[quantizer.name] = quantizer
        return quantizer.name

    def _through(self, kind: str, operands: Sequence[Operand], step: int, made: Read) -> Conversion | None:
        reads = [operand.read for operand in operands if operand.read is not None]
        numbers = [operand.number for operand in operands if operand.read is None]
        if kind == "where":
            return self._chosen(operands, step, made)
        if len(reads) == 2 and kind in ("add", "sub"):
            return self._straight_through(kind, reads, step, made)
        if len(reads) != 1:
            return None
        if operands[0].read is None and kind not in COMMUTING:
            return None
        (read,) = reads
        if kind in RANGES:
            return Conversion.beginning(made, *RANGES[kind])
        if kind in COMPARISONS:
            if numbers[0] is not None:
                self._comparisons[made.value] = _Comparison(made, read, numbers[0], kind in ABOVE, step)
            return None
        before = self._before(read)
        if kind == "hardtanh" and before.levels.step is None:
            # An activation function of its own: what is rounded later begins behind it.
            return Conversion.beginning(made, *_bounds(kind, numbers))
        levels = _after(before.levels, kind, numbers)
        if levels is None:
            return None
        return before.followed_by(step, levels, made)

    def _before(self, read: Read) -> Conversion:
        """What was made on the way to a value."""
        found = self._followed.get(read.value)
        if found is None:
            return Conversion.beginning(read)
        return found.seen_as(read)

    def _straight_through(self, kind: str, reads: Sequence[Read], step: int, made: Read) -> Conversion | None:
        """``x + (q - x)`` and ``(x - x) + q`` are q, where floating point makes no difference between them."""
        one, other = reads
        if kind == "sub":
            difference = self._difference(one, other, step, made)
            if difference is not None:
                self._differences[made.value] = difference
            return None
        for read, addend in ((one, other), (other, one)):
            difference = self._differences.get(addend.value)
            if difference is None or difference.made != addend:
                continue
            result = difference.minuend
            if result is None:
                result = self._before(read)
            elif difference.read != read:
                continue
            if result.levels.step is not None:
                steps = (*result.steps, difference.step, step)
                return replace(result, made=made, steps=steps)
        return None

    def _difference(self, minuend: Read, subtrahend: Read, step: int, made: Read) -> _Difference | None:
        if minuend == subtrahend:
            return _Difference(made, subtrahend, None, step)
        conversion = self._before(minuend)
        for point in conversion.points:
            if point.read == subtrahend and conversion.levels.rounds(point.levels):
                return _Difference(made, subtrahend, conversion, step)
        return None

    def _chosen(self, operands: Sequence[Operand], step: int, made: Read) -> Conversion | None:
        """``where(x > c, c, x)`` is a clamp."""
        condition, chosen, otherwise = operands
        if condition.read is None or otherwise.read is None or chosen.number is None:
            return None
        comparison = self._comparisons.get(condition.read.value)
        if comparison is None or comparison.made != condition.read:
            return None
        if (comparison.read, comparison.number) != (otherwise.read, chosen.number):
            return None
        kind = "minimum" if comparison.is_above else "maximum"
        before = self._before(otherwise.read)
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
