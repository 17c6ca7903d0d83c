"""What each operator of a written-out quantiser does to the levels of a value."""

import math

import pytest

from micronet_cli.functional.levels import Levels
from micronet_cli.trace.level_arithmetic import bounds_of, levels_after

RANGE = Levels().clamped(-1, 2)


@pytest.mark.parametrize(
    ("kind", "number", "low", "high"),
    [
        pytest.param("mul", 2, -2, 4, id="times"),
        pytest.param("mul", -2, -4, 2, id="times a negative number"),
        pytest.param("div", 2, -0.5, 1, id="divided"),
        pytest.param("add", 3, 2, 5, id="plus"),
        pytest.param("sub", 3, -4, -1, id="minus"),
        pytest.param("rsub", 3, 1, 4, id="taken from"),
    ],
)
def test_arithmetic_with_a_number_moves_the_range(kind, number, low, high):
    levels = levels_after(RANGE, kind, [number])
    assert (levels.low, levels.high) == (low, high)


@pytest.mark.parametrize("kind", ["mul", "div"])
def test_scaling_by_zero_or_by_no_single_number_is_not_followed(kind):
    assert levels_after(RANGE, kind, [0.0]) is None
    assert levels_after(RANGE, kind, [None]) is None


def test_a_copy_and_a_rounding():
    assert levels_after(RANGE, "clone", []) == RANGE
    assert levels_after(RANGE, "round", []).count == 4


@pytest.mark.parametrize(
    ("kind", "numbers", "bounds"),
    [
        pytest.param("clamp", [0, 6], (0, 6), id="clamp"),
        pytest.param("clamp_min", [0, None], (0, math.inf), id="lower bound"),
        pytest.param("clamp_min", [None, 6], (-math.inf, 6), id="clamp with an upper bound alone"),
        pytest.param("clamp_max", [6], (-math.inf, 6), id="upper bound"),
        pytest.param("minimum", [6], (-math.inf, 6), id="minimum"),
        pytest.param("maximum", [0], (0, math.inf), id="maximum"),
    ],
)
def test_bounds_are_those_that_the_operator_names(kind, numbers, bounds):
    assert bounds_of(kind, numbers) == bounds


def test_codes_are_clamped_once():
    codes = levels_after(levels_after(Levels(), "round", []), "clamp", [0, 15])
    assert codes.count == 16
    assert levels_after(codes, "clamp", [0, 15]) == codes
    assert levels_after(codes, "clamp", [2, 15]) is None
