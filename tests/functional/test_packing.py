"""Golden bytes by hand, and round trips."""

import numpy as np
import pytest

from micronet_cli.functional.packing import (
    expand_blocks,
    filled_up,
    group_rows,
    pack_digits,
    pack_mask,
    packed_bytes,
    patterns,
    radix_word,
    to_fixed,
    ungroup_rows,
    unpack_digits,
    unpack_mask,
    used_blocks,
)


@pytest.mark.parametrize(
    ("base", "digits", "packed"),
    [
        (5, [4, 4, 4], "7c"),  # 4 + 4 * 5 + 4 * 25 = 124 of at most 127
        (5, [1, 0, 0, 2, 0, 0], "0101"),  # 1, then 2 seven bits further up: 1 + (2 << 7) = 0x101
        (4, [3, 0, 1, 2, 1], "9301"),  # two bits each, the first lowest: 10010011, then 01
        (2, [1, 0, 0, 0, 0, 0, 0, 0, 1], "0101"),
        (16, [1, 2, 3], "2103"),
        (256, [7, 255], "07ff"),
        (1, [0, 0, 0], ""),
        (3, [], ""),
    ],
)
def test_digits_have_these_bytes(base, digits, packed):
    assert pack_digits(np.array(digits, int), base).hex() == packed
    assert unpack_digits(bytes.fromhex(packed), len(digits), base).tolist() == digits


def test_five_levels_take_seven_bits_for_three_and_four_take_two():
    assert radix_word(5) == (3, 7)
    assert packed_bytes(3000, 5) == 875
    assert packed_bytes(3000, 4) == 750


@pytest.mark.parametrize("base", [2, 3, 5, 7, 15, 16, 17, 255, 256, 257, 65535, 65536])
@pytest.mark.parametrize("whole_bytes", [False, True])
def test_digits_come_back(base, whole_bytes):
    rng = np.random.default_rng(base)
    for count in (0, 1, 2, 11, 12, 1000, 300_001 if base == 15 else 999):
        digits = rng.integers(0, base, count)
        packed = pack_digits(digits, base, whole_bytes)
        assert len(packed) == packed_bytes(count, base, whole_bytes)
        assert np.array_equal(unpack_digits(packed, count, base, whole_bytes), digits)


@pytest.mark.parametrize(
    ("content", "count", "base"),
    [
        ("7c", 4, 5),  # too short
        ("7c00", 3, 5),  # too long
        ("7d", 3, 5),  # 125 is no three digits of base 5
        ("fc", 3, 5),  # a bit beyond the word
        ("19", 2, 5),  # a third digit, where there are two
    ],
)
def test_bytes_that_no_writer_makes_are_refused(content, count, base):
    with pytest.raises(ValueError, match=r"digits|bits"):
        unpack_digits(bytes.fromhex(content), count, base)


def test_mask_has_these_bytes():
    mask = np.array([[1, 0, 0, 1, 0], [0, 0, 0, 0, 1]], bool)
    assert pack_mask(mask).hex() == "0902"
    assert np.array_equal(unpack_mask(bytes.fromhex("0902"), (2, 5)), mask)
    for wrong in ("09", "090200", "0906"):
        with pytest.raises(ValueError, match="elements"):
            unpack_mask(bytes.fromhex(wrong), (2, 5))


def test_blocks_with_smaller_edges():
    mask = np.zeros((3, 5), bool)
    mask[2, 4] = True
    used = used_blocks(mask, (2, 2))
    assert used.tolist() == [[False, False, False], [False, False, True]]
    assert np.argwhere(expand_blocks(used, (2, 2), mask.shape)).tolist() == [[2, 4]]
    mask[0, 1] = True
    assert expand_blocks(used_blocks(mask, (2, 2)), (2, 2), mask.shape)[:2, :2].all()


def test_two_of_four_has_six_patterns():
    rows, number = patterns(2, 4)
    assert len(rows) == 6
    assert number[0b0011] == 0
    assert number[0b1100] == 5
    assert (number >= 0).sum() == 6


def test_groups_lie_along_the_input_dimension():
    weight = np.arange(2 * 4 * 3).reshape(2, 4, 3)
    rows = group_rows(weight, 4)
    assert rows[0].tolist() == [0, 3, 6, 9]
    assert np.array_equal(ungroup_rows(rows, weight.shape), weight)
    assert filled_up(np.array([[True, False, False, True]]), 2).tolist() == [[True, False, False, True]]


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-30, -3e-31], [2.0**-31, 1.0], [-1e20, 3.0], [np.nextafter(1, 0)]])
def test_fixed_point_is_within_half_a_unit(values):
    stored, exponent = to_fixed(np.array(values))
    assert stored.dtype == np.int32
    assert np.abs(np.ldexp(stored.astype(float), exponent) - values).max() <= np.ldexp(0.5, exponent)
    assert np.ldexp(1.0, exponent) <= 2.0**-30 * 1.001 * np.abs(values).max() or not any(values)
