"""Golden bytes by hand, and round trips."""

import numpy as np
import pytest

from micronet_cli.functional.packing import (
    expand_blocks,
    filled_up,
    group_rows,
    pack_digits,
    pack_mask,
    pack_range,
    packed_bytes,
    patterns,
    radix_word,
    to_fixed,
    ungroup_rows,
    unpack_digits,
    unpack_mask,
    unpack_range,
    used_blocks,
)

BYTES = {
    "4 + 4 * 5 + 4 * 25 = 124 of at most 127": (5, [4, 4, 4], "7c"),
    "the next word is seven bits further up: 1 + (2 << 7)": (5, [1, 0, 0, 2, 0, 0], "0101"),
    "two bits each, the first lowest: 10010011, then 01": (4, [3, 0, 1, 2, 1], "9301"),
    "bits": (2, [1, 0, 0, 0, 0, 0, 0, 0, 1], "0101"),
    "half bytes": (16, [1, 2, 3], "2103"),
    "bytes": (256, [7, 255], "07ff"),
    "one level takes nothing": (1, [0, 0, 0], ""),
    "no digits": (3, [], ""),
}


@pytest.mark.parametrize(("base", "digits", "packed"), BYTES.values(), ids=BYTES.keys())
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


IMPOSSIBLE = {
    "too short": ("7c", 4, 5),
    "too long": ("7c00", 3, 5),
    "125 is no three digits of base 5": ("7d", 3, 5),
    "a bit beyond the word": ("fc", 3, 5),
    "a third digit where there are two": ("19", 2, 5),
}


@pytest.mark.parametrize(("content", "count", "base"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
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


RANGES = {
    # 2.5 is 0x4004000000000000 as a double; the code of zero, 3, fills the lowest 16 bits.
    "exact scale": (2.5, -3, "0300000000000440", 2.5),
    "zero is the first code": (1.0, 0, "000000000000f03f", 1.0),
    "largest code of zero": (1.0, -65535, "ffff00000000f03f", 1.0),
    "half of the last bit kept rounds up": (1 + 2.0**-37, 0, "000001000000f03f", 1 + 2.0**-36),
    "less than half rounds down": (1 + 2.0**-38, 0, "000000000000f03f", 1.0),
}


@pytest.mark.parametrize(("scale", "zero_point", "packed", "read"), RANGES.values(), ids=RANGES.keys())
def test_range_has_these_bytes(scale, zero_point, packed, read):
    assert pack_range(scale, zero_point).hex() == packed
    assert unpack_range(bytes.fromhex(packed)) == (read, zero_point)


def test_whole_byte_words_hold_as_many_digits_as_fit():
    # 15 * 15 <= 256 < 17 * 17; beyond 256 levels a word has 16 bits.
    assert [radix_word(base, whole_bytes=True) for base in (2, 15, 17, 256, 257)] == [
        (8, 8),
        (2, 8),
        (1, 8),
        (1, 8),
        (1, 16),
    ]


@pytest.mark.parametrize("base", range(2, 40))
def test_no_word_takes_fewer_bits_a_digit(base):
    digits, bits = radix_word(base)
    assert base**digits <= 2**bits
    assert all(base ** (other * digits // bits + 1) > 2**other for other in range(1, 65))


def test_filled_up_leaves_full_rows_and_fills_empty_ones_from_the_left():
    rows = np.array([[True, True, False], [False, False, False]])
    assert filled_up(rows, 2).tolist() == [[True, True, False], [True, True, False]]


def test_mask_of_no_elements_is_no_bytes():
    assert pack_mask(np.zeros((0, 3), bool)) == b""
    assert unpack_mask(b"", (0, 3)).shape == (0, 3)
