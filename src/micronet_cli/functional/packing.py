"""Integers to bytes and back: mixed radix, bit masks, patterns of N:M groups, fixed point.

Everything is little-endian, the least significant bit first. Readers check what they are given: a ValueError tells of
bytes that no writer makes.
"""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache

import numpy as np

WORD_BITS = 64
ZERO_POINT_BITS = 16  # of an activation's range
_CHUNK_WORDS = 1 << 15  # bits are unpacked to bytes on the way: so many words at a time


@cache
def radix_word(base: int, whole_bytes: bool = False) -> tuple[int, int]:
    """(digits, bits) of the word in which digits ``0 .. base - 1`` are packed: base^digits <= 2^bits.

    The fewest bits a digit in at most 64, and the shortest such word. With ``whole_bytes`` as many digits as a word of
    8 bits (16 where the base needs them) holds, for a coder that looks at bytes.

    >>> radix_word(5), radix_word(4), radix_word(15), radix_word(1)
    ((3, 7), (1, 2), (11, 43), (1, 0))
    >>> radix_word(15, whole_bytes=True), radix_word(1000, whole_bytes=True)
    ((2, 8), (1, 16))
    """
    if base < 2:
        return 1, 0
    digit_bits = (base - 1).bit_length()
    if whole_bytes:
        bits = 8 * math.ceil(digit_bits / 8)
        return _digits(base, bits), bits
    words = [(_digits(base, bits), bits) for bits in range(digit_bits, WORD_BITS + 1)]
    return min(words, key=_bits_a_digit)


def _bits_a_digit(word: tuple[int, int]) -> tuple[Fraction, int]:
    """What makes one word better than another: fewer bits a digit, then fewer bits."""
    digits, bits = word
    return Fraction(bits, digits), bits


def _digits(base: int, bits: int) -> int:
    """How many digits ``bits`` bits hold; in integers, since logarithms round."""
    digits = 0
    while base ** (digits + 1) <= 1 << bits:
        digits += 1
    return digits


def packed_bytes(count: int, base: int, whole_bytes: bool = False) -> int:
    """Bytes of ``count`` digits.

    >>> packed_bytes(3, 5), packed_bytes(4, 5), packed_bytes(1000, 1)
    (1, 2, 0)
    """
    digits, bits = radix_word(base, whole_bytes)
    words = _ceil_div(count, digits)
    return _ceil_div(words * bits, 8)


def _ceil_div(number: int, divisor: int) -> int:
    """``number / divisor`` rounded up, exact at any size."""
    return -(-number // divisor)


def pack_digits(values: np.ndarray, base: int, whole_bytes: bool = False) -> bytes:
    """Digits ``0 .. base - 1`` to bytes; the first digit of a word is its lowest.

    1 + 5 * 2 + 25 * 4 = 111, in seven bits:

    >>> pack_digits(np.array([1, 2, 4]), 5).hex()
    '6f'
    """
    digits, bits = radix_word(base, whole_bytes)
    if not bits:
        return b""
    flat = values.astype(np.uint64).ravel()
    missing = -flat.size % digits
    columns = np.pad(flat, (0, missing)).reshape(-1, digits).T
    words = np.zeros(columns.shape[1], np.uint64)
    for column in columns[::-1]:
        words = words * np.uint64(base) + column
    octets = words.astype("<u8").view(np.uint8).reshape(-1, 8)
    if bits % 8 == 0:
        return octets[:, : bits // 8].tobytes()
    content = bytearray()
    for chunk in _chunks(len(words)):
        used_bits = np.unpackbits(octets[chunk], 1, bits, "little")
        packed = np.packbits(used_bits, bitorder="little")
        content += packed.tobytes()
    return bytes(content)


def unpack_digits(content: bytes, count: int, base: int, whole_bytes: bool = False) -> np.ndarray:
    """What ``pack_digits`` packed: int64 ``[count]``.

    Raises:
        ValueError: another length than ``packed_bytes``, or bits that no digits give.
    """
    digits, bits = radix_word(base, whole_bytes)
    if len(content) != packed_bytes(count, base, whole_bytes):
        raise ValueError(f"{len(content)} bytes do not hold {count} digits of base {base}")
    if not bits:
        return np.zeros(count, np.int64)
    octets = np.frombuffer(content, np.uint8)
    left = _words(octets, _ceil_div(count, digits), bits)
    rows = np.empty((len(left), digits), np.int64)
    for column in rows.T:
        left, column[:] = np.divmod(left, np.uint64(base))
    flat = rows.ravel()
    beyond = flat[count:]
    if left.any() or beyond.any():
        raise ValueError(f"bits beyond the last of {count} digits of base {base}")
    return flat[:count]


def _words(octets: np.ndarray, count: int, bits: int) -> np.ndarray:
    """``count`` words of ``bits`` bits each, uint64."""
    words = np.zeros((count, 8), np.uint8)
    if bits % 8 == 0:
        words[:, : bits // 8] = octets.reshape(count, bits // 8)
        return words.view("<u8").ravel()
    spare_bits = len(octets) * 8 - count * bits
    if spare_bits and octets[-1] >> (8 - spare_bits):
        raise ValueError("bits beyond the last word")
    to_word = ((0, 0), (0, WORD_BITS - bits))
    for chunk in _chunks(count):
        size = min(chunk.stop, count) - chunk.start
        first = chunk.start * bits // 8
        end = first + _ceil_div(size * bits, 8)
        used_bits = np.unpackbits(octets[first:end], count=size * bits, bitorder="little")
        whole = np.pad(used_bits.reshape(size, bits), to_word)
        words[chunk] = np.packbits(whole, 1, "little")
    return words.view("<u8").ravel()


def _chunks(count: int) -> Iterator[slice]:
    """Slices of a multiple of 8 words, so that each begins on a byte."""
    for first in range(0, count, _CHUNK_WORDS):
        yield slice(first, first + _CHUNK_WORDS)


def pack_mask(mask: np.ndarray) -> bytes:
    """One bit an element, in C order.

    >>> pack_mask(np.array([[True, False], [True, True]])).hex()
    '0d'
    """
    return np.packbits(mask.ravel(), bitorder="little").tobytes()


def unpack_mask(content: bytes, shape: Sequence[int]) -> np.ndarray:
    """What ``pack_mask`` packed.

    Raises:
        ValueError: another length, or a bit beyond the last element.
    """
    count = math.prod(shape)
    if len(content) != _ceil_div(count, 8):
        raise ValueError(f"{len(content)} bytes do not hold a mask of {count} elements")
    bits = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
    if bits[count:].any():
        raise ValueError(f"bits beyond the last of {count} elements")
    mask = bits[:count].astype(bool)
    return mask.reshape(tuple(shape))


def used_blocks(mask: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Which blocks of ``sizes`` hold a True: bool, one element a block. Edge blocks are smaller.

    >>> used_blocks(np.array([[True, False, False], [False, False, False]]), (2, 2)).tolist()
    [[True, False]]
    """
    for axis, size in enumerate(sizes):
        if size > 1:
            firsts = np.arange(0, mask.shape[axis], size)
            mask = np.logical_or.reduceat(mask, firsts, axis)
    return mask


def expand_blocks(used: np.ndarray, sizes: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """The elements of the used blocks: bool of ``shape``."""
    for axis, (size, length) in enumerate(zip(sizes, shape, strict=True)):
        if size > 1:
            whole = used.repeat(size, axis)
            used = whole.take(np.arange(length), axis)
    return used


@cache
def patterns(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """All bool rows of length m with n True, ``[C(m, n), m]``, and row number by bits, -1 for others, ``[2^m]``.

    >>> patterns(1, 2)[0].tolist(), patterns(1, 2)[1].tolist()
    ([[True, False], [False, True]], [-1, 0, 1, -1])
    """
    every = np.arange(2**m)
    bits = every[:, None] >> np.arange(m) & 1
    rows = bits.astype(bool)
    chosen = rows.sum(1) == n
    position = np.cumsum(chosen) - 1
    number = np.where(chosen, position, -1)
    return rows[chosen], number


def group_rows(mask: np.ndarray, m: int) -> np.ndarray:
    """Groups of m neighbours along the input dimension (axis 1): ``[groups, m]``, a copy."""
    input_last = np.moveaxis(mask, 1, -1)
    return input_last.reshape(-1, m)


def ungroup_rows(rows: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Back to ``shape``."""
    input_last = rows.reshape(shape[0], *shape[2:], shape[1])
    return np.moveaxis(input_last, -1, 1)


def filled_up(rows: np.ndarray, n: int) -> np.ndarray:
    """Rows with exactly n True: False ones become True from the left where there are fewer.

    >>> filled_up(np.array([[False, False, True]]), 2).tolist()
    [[True, False, True]]
    """
    missing = n - rows.sum(1, keepdims=True)
    free = ~rows
    leftmost = np.cumsum(free, 1) <= missing
    return rows | (free & leftmost)


def to_fixed(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers as int32 times 2^exponent, the exponent such that the largest one fits: error below 2^-31 of it.

    >>> to_fixed(np.array([1.0, -0.75, 0.0]))
    (array([1073741824, -805306368,          0], dtype=int32), -30)
    """
    largest = np.abs(values).max(initial=0.0)
    _, largest_exponent = np.frexp(largest)
    exponent = int(largest_exponent) - 31
    scaled = np.rint(np.ldexp(values, -exponent))
    if np.abs(scaled).max(initial=0.0) >= 2**31:
        # The largest was rounded up, to one more than fits.
        exponent += 1
        scaled = np.rint(np.ldexp(values, -exponent))
    return scaled.astype(np.int32), exponent


def pack_range(scale: float, zero_point: int) -> bytes:
    """Eight bytes: the scale to 37 significant bits, and the code of 0, which is ``-zero_point``, in the lowest 16.

    >>> unpack_range(pack_range(2.5, -3))
    (2.5, -3)
    """
    half_a_unit = 1 << (ZERO_POINT_BITS - 1)
    bits = int(np.float64(scale).view(np.uint64)) + half_a_unit
    high = bits >> ZERO_POINT_BITS << ZERO_POINT_BITS
    zero_code = -zero_point
    return (high | zero_code).to_bytes(8, "little")


def unpack_range(content: bytes) -> tuple[float, int]:
    """Scale and zero point that ``pack_range`` packed."""
    word = int.from_bytes(content, "little")
    high, zero_code = divmod(word, 1 << ZERO_POINT_BITS)
    scale_bits = np.uint64(high << ZERO_POINT_BITS)
    return float(scale_bits.view(np.float64)), -zero_code
