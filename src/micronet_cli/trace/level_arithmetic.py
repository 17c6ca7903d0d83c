"""The operators of which quantisers are written, and what each does to the levels of a value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from micronet_cli.functional.levels import Levels
from micronet_cli.trace.layouts import Read

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


def levels_after(levels: Levels, kind: str, numbers: Sequence[float | None]) -> Levels | None:
    """The levels behind one more operation, None where it is no part of a conversion."""
    if kind in COPIES:
        return levels
    if kind == "round":
        return levels.rounded()
    if kind in ARITHMETIC:
        return _shifted_or_scaled(levels, kind, numbers[0])
    clamped = levels.clamped(*bounds_of(kind, numbers))
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


def bounds_of(kind: str, numbers: Sequence[float | None]) -> tuple[float, float]:
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
