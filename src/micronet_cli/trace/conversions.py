"""Quantisers that are written out in operators: which values a rounding and a clamp leave with few levels.

Every activation is followed from the value where scaling begins, through scalings and shifts by one number, clamps and
roundings, to the value that stands for the first one again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from micronet_cli.trace.conversion import Conversion
from micronet_cli.trace.layouts import Read
from micronet_cli.trace.level_arithmetic import ABOVE, COMMUTING, COMPARISONS, RANGES, Operand, bounds_of, levels_after
from micronet_cli.trace.records import ExecutedQuantizer

# [T] scales and zero points are stored: one of each for an activation, at 32 bits.
ACTIVATION_QPARAMS_BITS = 64


@dataclass(frozen=True)
class _Difference:
    """What straight-through estimators add to ``read``: ``minuend - read``, or ``read - read`` without a minuend."""

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
        value = made.value
        self._followed[value] = conversion
        if not conversion.is_quantized:
            return None
        self.quantized[value] = conversion
        levels = conversion.levels
        assert levels.bits is not None
        return self.add_activation(value, layer, levels.bits, levels.codes)

    def add_activation(self, value: int, layer: str, bits: int, codes: tuple[int, int] | None) -> str:
        """Take a quantiser that makes a value; its name."""
        name = f"{layer}.quantizer{value}"
        quantizer = ExecutedQuantizer(name, layer, bits, ACTIVATION_QPARAMS_BITS, codes)
        return self.add(quantizer)

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
        number_is_first = operands[0].read is None
        if number_is_first and kind not in COMMUTING:
            return None
        (read,) = reads
        if kind in RANGES:
            return Conversion.beginning(made, *RANGES[kind])
        if kind in COMPARISONS:
            number = numbers[0]
            if number is not None:
                comparison = _Comparison(made, read, number, kind in ABOVE, step)
                self._comparisons[made.value] = comparison
            return None
        before = self._before(read)
        if kind == "hardtanh" and before.levels.step is None:
            # An activation function of its own: what is rounded later begins behind it.
            return Conversion.beginning(made, *bounds_of(kind, numbers))
        levels = levels_after(before.levels, kind, numbers)
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
        either_order = [(one, other), (other, one)]
        for read, addend in either_order:
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
            if point.read != subtrahend:
                continue
            if conversion.levels.rounds(point.levels):
                return _Difference(made, subtrahend, conversion, step)
        return None

    def _chosen(self, operands: Sequence[Operand], step: int, made: Read) -> Conversion | None:
        """``where(x > c, c, x)`` is a clamp."""
        condition, _, otherwise = [operand.read for operand in operands]
        bound = operands[1].number
        if condition is None or otherwise is None or bound is None:
            return None
        comparison = self._comparisons.get(condition.value)
        if comparison is None or comparison.made != condition:
            return None
        if comparison.read != otherwise or comparison.number != bound:
            return None
        kind = "minimum" if comparison.is_above else "maximum"
        before = self._before(otherwise)
        levels = levels_after(before.levels, kind, [bound])
        if levels is None:
            return None
        steps = (*before.steps, comparison.step)
        compared = replace(before, steps=steps)
        return compared.followed_by(step, levels, made)
