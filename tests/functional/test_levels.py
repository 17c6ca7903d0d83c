"""Levels of a number through scalings, roundings and clamps: how many there are, and what they stand for."""

import pytest

from micronet_cli.functional.levels import Levels


def codes_of(low, high):
    return Levels().rounded().clamped(low, high)


@pytest.mark.parametrize(
    ("low", "high", "bits"),
    [
        pytest.param(0, 15, 4, id="all codes of 4 bits"),
        pytest.param(0, 16, 5, id="one more"),
        pytest.param(-8, 7, 4, id="signed"),
        pytest.param(-1, 1, 2, id="ternary"),
        pytest.param(0, 1, 1, id="binary"),
        pytest.param(3, 3, 1, id="one code"),
        pytest.param(0, 65535, 16, id="16 bits"),
    ],
)
def test_bits_hold_every_code(low, high, bits):
    assert codes_of(low, high).bits == bits


def test_floats_and_integers_without_bounds_are_not_counted():
    assert Levels().clamped(0, 15).count is None
    assert Levels().rounded().count is None
    assert Levels().rounded().clamped(0, float("inf")).bits is None


def test_a_range_that_is_rounded_counts_a_half_at_its_ends():
    assert Levels().clamped(-0.5, 2.5).rounded().count == 5
    assert Levels().clamped(0, 1).times(15).rounded().count == 16


def test_a_bound_between_two_levels_leaves_no_grid():
    assert Levels().rounded().clamped(0, 14.5) is None
    assert Levels().rounded().clamped(-0.5, 14) is None
    assert Levels().rounded().times(0.5).clamped(0, 7.5).count == 16


def test_a_negative_factor_turns_the_range():
    levels = codes_of(0, 15).times(-0.5).plus(1)
    assert (levels.low, levels.high, levels.step, levels.count) == (-6.5, 1, 0.5, 16)


def test_codes_are_counted_from_zero():
    assert codes_of(0, 15).plus(-3).times(0.1).codes == (-3, 12)
    assert codes_of(0, 15).plus(0.5).codes is None


def test_levels_stand_for_what_was_scaled_back():
    scaled = Levels().times(4)
    levels = scaled.rounded().clamped(0, 15)
    assert levels.stands_for(scaled, within=0)
    assert not levels.stands_for(Levels(), within=0.5)
    assert levels.times(0.25).stands_for(Levels(), within=0)
    shifted = levels.times(0.25).plus(0.1)
    assert shifted.stands_for(Levels(), within=0.5)
    assert not shifted.stands_for(Levels(), within=0.1)


def test_only_what_was_not_clamped_since_is_rounded_to_the_nearest_level():
    clamped = Levels().times(4).clamped(-8, 7)
    assert clamped.rounded().rounds(clamped)
    assert not Levels().times(4).rounded().clamped(-8, 7).rounds(Levels().times(4))
    # A bound that the range keeps anyway changes nothing.
    assert clamped.rounded().clamped(-8, 7).rounds(clamped)
    # 0 between two levels: near it the difference is rounded.
    off_grid = Levels().plus(0.5).rounded().plus(-0.5)
    assert not off_grid.rounds(Levels())
