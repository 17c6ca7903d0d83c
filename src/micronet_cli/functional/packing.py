"""Digits of any base to bytes and back: mixed radix, in words of at most 64 bits.

Everything is little-endian, the least significant bit first. Readers check what they are given: a ValueError tells of
bytes that no writer makes.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import cache

import numpy as np

WORD_BITS = 64
WORD_BYTES = WORD_BITS // 8
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
    largest_digit = base - 1
    digit_bits = largest_digit.bit_length()
    if whole_bytes:
        bits = 8 * math.ceil(digit_bits / 8)
        return _digits(base, bits), bits
    words = []
    for bits in range(digit_bits, WORD_BITS + 1):
        digits = _digits(base, bits)
        words.append((digits, bits))
    return min(words, key=_bits_a_digit)


def _bits_a_digit(word: tuple[int, int]) -> tuple[Fraction, int]:
    """What makes one word better than another: fewer bits a digit, then fewer bits."""
    digits, bits = word
    return Fraction(bits, digits), bits


def _digits(base: int, bits: int) -> int:
    """How many digits ``bits`` bits hold; in integers, since logarithms round."""
    codes = 1 << bits
    digits = 0
    while base ** (digits + 1) <= codes:
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
    words = _words_of_digits(values, base, digits)
    octets = words.astype("<u8").view(np.uint8)
    rows = octets.reshape(-1, WORD_BYTES)
    if bits % 8 == 0:
        used_bytes = rows[:, : bits // 8]
        return used_bytes.tobytes()
    content = bytearray()
    for chunk in _chunks(len(rows)):
        used_bits = np.unpackbits(
            rows[chunk],
            axis=1,
            count=bits,
            bitorder="little",
        )
        packed = np.packbits(used_bits, bitorder="little")
        content += packed.tobytes()
    return bytes(content)


def _words_of_digits(values: np.ndarray, base: int, digits: int) -> np.ndarray:
    """So many digits each, the last word filled up with zeros: uint64."""
    flat = values.astype(np.uint64).ravel()
    missing = -flat.size % digits
    padded = np.pad(flat, (0, missing))
    columns = padded.reshape(-1, digits).T
    words = np.zeros(columns.shape[1], np.uint64)
    factor = np.uint64(base)
    for column in columns[::-1]:
        words = words * factor + column
    return words


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
    words = _ceil_div(count, digits)
    left = _words(octets, words, bits)
    rows = np.empty((words, digits), np.int64)
    divisor = np.uint64(base)
    for column in rows.T:
        left, column[:] = np.divmod(left, divisor)
    flat = rows.ravel()
    beyond = flat[count:]
    if left.any() or beyond.any():
        raise ValueError(f"bits beyond the last of {count} digits of base {base}")
    return flat[:count]


def _words(octets: np.ndarray, count: int, bits: int) -> np.ndarray:
    """``count`` words of ``bits`` bits each, uint64."""
    words = np.zeros((count, WORD_BYTES), np.uint8)
    if bits % 8 == 0:
        word_bytes = bits // 8
        words[:, :word_bytes] = octets.reshape(count, word_bytes)
    else:
        _check_spare_bits(octets, count * bits)
        for chunk in _chunks(count):
            words[chunk] = _chunk_of_words(octets, chunk, bits)
    return words.view("<u8").ravel()


def _check_spare_bits(octets: np.ndarray, used_bits: int) -> None:
    """Refuse a last byte with something above the bits that are used."""
    spare_bits = len(octets) * 8 - used_bits
    if not spare_bits:
        return
    used_of_last = 8 - spare_bits
    if octets[-1] >> used_of_last:
        raise ValueError("bits beyond the last word")


def _chunk_of_words(octets: np.ndarray, chunk: slice, bits: int) -> np.ndarray:
    """Some of the words, eight bytes each: ``[words, 8]``."""
    size = chunk.stop - chunk.start
    first = chunk.start * bits // 8
    end = first + _ceil_div(size * bits, 8)
    used_bits = np.unpackbits(
        octets[first:end],
        count=size * bits,
        bitorder="little",
    )
    rows = used_bits.reshape(size, bits)
    missing = WORD_BITS - bits
    whole = np.pad(rows, ((0, 0), (0, missing)))
    return np.packbits(whole, axis=1, bitorder="little")


def _chunks(count: int) -> Iterator[slice]:
    """Slices of a multiple of 8 words but for the last, so that each begins on a byte."""
    for first in range(0, count, _CHUNK_WORDS):
        end = min(first + _CHUNK_WORDS, count)
        yield slice(first, end)
