"""Digits have the bytes worked out by hand, and come back."""

import numpy as np
import pytest

from micronet_cli.functional.packing import pack_digits, packed_bytes, radix_word, unpack_digits

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
