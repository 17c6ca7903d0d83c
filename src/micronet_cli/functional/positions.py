"""Where the non-zeros of a weight are: bit masks, blocks, patterns of N:M groups.

Bits are little-endian, the least significant first. A reader's ValueError tells of bytes that no writer makes.
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np


def pack_mask(mask: np.ndarray) -> bytes:
    """One bit an element, in C order.

    >>> pack_mask(np.array([[True, False], [True, True]])).hex()
    '0d'
    """
    bits = mask.ravel()
    packed = np.packbits(bits, bitorder="little")
    return packed.tobytes()


def unpack_mask(content: bytes, shape: Sequence[int]) -> np.ndarray:
    """What ``pack_mask`` packed.

    Raises:
        ValueError: another length, or a bit beyond the last element.
    """
    count = math.prod(shape)
    if len(content) != math.ceil(count / 8):
        raise ValueError(f"{len(content)} bytes do not hold a mask of {count} elements")
    octets = np.frombuffer(content, np.uint8)
    bits = np.unpackbits(octets, bitorder="little")
    beyond = bits[count:]
    if beyond.any():
        raise ValueError(f"bits beyond the last of {count} elements")
    elements = bits[:count]
    mask = elements.astype(bool)
    return mask.reshape(tuple(shape))


def used_blocks(mask: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Which blocks of ``sizes`` hold a True: bool, one element a block. Edge blocks are smaller.

    >>> used_blocks(np.array([[True, False, False], [False, False, False]]), (2, 2)).tolist()
    [[True, False]]
    """
    for axis, size in enumerate(sizes):
        if size == 1:
            continue
        length = mask.shape[axis]
        firsts = np.arange(0, length, size)
        mask = np.logical_or.reduceat(mask, firsts, axis)
    return mask


def expand_blocks(used: np.ndarray, sizes: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """The elements of the used blocks: bool of ``shape``."""
    pairs = zip(sizes, shape, strict=True)
    for axis, (size, length) in enumerate(pairs):
        if size == 1:
            continue
        # Edge blocks are smaller: what lies beyond the end is cut off.
        whole = used.repeat(size, axis)
        elements = np.arange(length)
        used = whole.take(elements, axis)
    return used


@cache
def patterns(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """All bool rows of length m with n True, ``[C(m, n), m]``, and row number by bits, -1 for others, ``[2^m]``.

    >>> patterns(1, 2)[0].tolist(), patterns(1, 2)[1].tolist()
    ([[True, False], [False, True]], [-1, 0, 1, -1])
    """
    every = np.arange(2**m)
    positions = np.arange(m)
    shifted = every[:, None] >> positions
    bits = shifted & 1
    rows = bits.astype(bool)
    kept = rows.sum(axis=1)
    chosen = kept == n
    row_number = np.cumsum(chosen) - 1
    number_by_bits = np.where(chosen, row_number, -1)
    return rows[chosen], number_by_bits


def group_rows(mask: np.ndarray, m: int) -> np.ndarray:
    """Groups of m neighbours along the input dimension (axis 1): ``[groups, m]``, a copy."""
    input_last = np.moveaxis(mask, 1, -1)
    return input_last.reshape(-1, m)


def ungroup_rows(rows: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Back to ``shape``."""
    outputs, inputs, *kernel = shape
    input_last = rows.reshape(outputs, *kernel, inputs)
    return np.moveaxis(input_last, -1, 1)


def filled_up(rows: np.ndarray, n: int) -> np.ndarray:
    """Rows with exactly n True: False ones become True from the left where there are fewer.

    >>> filled_up(np.array([[False, False, True]]), 2).tolist()
    [[True, False, True]]
    """
    kept = rows.sum(axis=1, keepdims=True)
    missing = n - kept
    free = ~rows
    rank_from_left = np.cumsum(free, axis=1)
    added = free & (rank_from_left <= missing)
    return rows | added
