"""One written-out quantiser: what it stands for, and from which value on its operations are its own."""

from micronet_cli.functional.levels import Levels
from micronet_cli.trace.conversion import Conversion
from micronet_cli.trace.layouts import Layout, Read

SQUARE = Layout((2, 2), (2, 1), 0)
TURNED = Layout((2, 2), (1, 2), 0)


def read(value):
    return Read(value, SQUARE)


def scaled():
    return Conversion.beginning(read(0)).followed_by(10, Levels().times(4), read(1))


def codes():
    levels = Levels().times(4).rounded().clamped(0, 15)
    return scaled().followed_by(11, levels, read(2))


def test_codes_are_those_of_what_was_rounded():
    conversion = codes()
    assert conversion.is_quantized
    assert (conversion.origin, conversion.own_steps) == (1, (11,))
    assert not scaled().is_quantized


def test_scaled_back_they_stand_for_the_value_where_scaling_began():
    conversion = codes().followed_by(12, codes().levels.times(0.25), read(3))
    assert conversion.is_quantized
    assert (conversion.origin, conversion.own_steps) == (0, (10, 11, 12))


def test_scaled_to_something_else_they_stand_for_nothing():
    other = codes().followed_by(12, codes().levels.times(0.5), read(3))
    assert not other.is_quantized
    # In two steps they are back.
    back = other.followed_by(13, other.levels.times(0.5), read(4))
    assert (back.origin, back.own_steps) == (0, (10, 11, 12, 13))


def test_what_was_scaled_back_is_not_scaled_again_to_a_later_value():
    back = codes().followed_by(12, codes().levels.times(0.25), read(3))
    again = back.followed_by(13, back.levels.times(4), read(4))
    assert not again.is_quantized


def test_a_view_keeps_the_levels_and_forgets_where_elements_are():
    turned = codes().seen_as(Read(2, TURNED))
    assert turned.levels == codes().levels
    assert [point.read for point in turned.points] == [None, None]
    assert codes().seen_as(read(2)) == codes()
