"""One weight to bytes and back: where its non-zeros are, and their codes."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from micronet_cli.artifact.entries import GROUP_SIZES, Layer
from micronet_cli.artifact.format import Cursor, Damaged
from micronet_cli.functional.packing import (
    expand_blocks,
    filled_up,
    group_rows,
    pack_digits,
    pack_mask,
    packed_bytes,
    patterns,
    ungroup_rows,
    unpack_digits,
    unpack_mask,
    used_blocks,
)

# Over (C_out, C_in); the kernel goes by elements.
BLOCKS = ((1, 2), (2, 1), (2, 2), (1, 4), (4, 1), (4, 4), (1, 8), (8, 1), (8, 8), (1, 16), (16, 1), (16, 16))
SAMPLE = 64  # output channels by which block shapes are judged first


def covered(positions: Sequence[Any], nonzero: np.ndarray) -> np.ndarray:
    """The elements whose codes are stored: every non-zero, and what shares its block or fills its group."""
    kind, *rest = positions
    if kind == "all":
        return np.ones_like(nonzero)
    if kind == "blocks":
        return expand_blocks(used_blocks(nonzero, rest), rest, nonzero.shape)
    if kind == "groups":
        n, m = rest
        return ungroup_rows(filled_up(group_rows(nonzero, m), n), nonzero.shape)
    return nonzero


def pack_positions(positions: Sequence[Any], cover: np.ndarray, whole_bytes: bool = False) -> bytes:
    """Bytes that tell which elements are covered."""
    kind, *rest = positions
    if kind == "all":
        return b""
    if kind == "blocks":
        return pack_mask(used_blocks(cover, rest))
    if kind == "groups":
        n, m = rest
        _, number = patterns(n, m)
        bits = group_rows(cover, m) @ (1 << np.arange(m))
        return pack_digits(number[bits], math.comb(m, n), whole_bytes)
    return pack_mask(cover)


def positions_bytes(positions: Sequence[Any], shape: Sequence[int], whole_bytes: bool = False) -> int:
    """How many bytes ``pack_positions`` makes for a weight of this shape."""
    kind, *rest = positions
    if kind == "all":
        return 0
    if kind == "groups":
        n, m = rest
        return packed_bytes(math.prod(shape) // m, math.comb(m, n), whole_bytes)
    sizes = rest if kind == "blocks" else [1] * len(shape)
    return -(-math.prod(-(-length // size) for length, size in zip(shape, sizes, strict=True)) // 8)


def unpack_positions(positions: Sequence[Any], shape: Sequence[int], masks: Cursor, whole_bytes: bool) -> np.ndarray:
    """The covered elements, bool of ``shape``.

    Raises:
        Damaged: the positions do not fit the shape or the stream.
    """
    kind, *rest = positions
    if kind == "blocks" and (len(rest) != len(shape) or any(s > d for s, d in zip(rest, shape, strict=False))):
        raise Damaged("blocks are larger than the weight")
    if kind == "groups" and (len(shape) < 2 or shape[1] % rest[1]):
        raise Damaged("groups do not divide the input dimension")
    content = masks.take(positions_bytes(positions, shape, whole_bytes))
    if kind == "all":
        return np.ones(tuple(shape), bool)
    if kind == "blocks":
        grid = [-(-length // size) for length, size in zip(shape, rest, strict=True)]
        return expand_blocks(unpack_mask(content, grid), rest, shape)
    if kind == "groups":
        n, m = rest
        numbers = unpack_digits(content, math.prod(shape) // m, math.comb(m, n), whole_bytes)
        return ungroup_rows(patterns(n, m)[0][numbers], shape)
    return unpack_mask(content, shape)


def smallest_positions(nonzero: np.ndarray, value_bits: float, fewer_bits: float) -> tuple[Any, ...]:
    """The positions that make the weight smallest.

    Args:
        nonzero: bool, of the weight's shape.
        value_bits: of a code.
        fewer_bits: of a code that cannot be 0.
    """

    def total_bits(positions: tuple[Any, ...], mask: np.ndarray) -> float:
        cover = covered(positions, mask)
        bits = value_bits if (cover & ~mask).any() else fewer_bits
        return cover.sum() * bits + 8 * positions_bytes(positions, mask.shape)

    plain = [("all",), ("mask",)]
    best = min(plain, key=lambda p: total_bits(p, nonzero))
    if nonzero.all():
        return best
    sample = nonzero[:SAMPLE]
    limit = 1.1 * min(total_bits(p, sample) for p in plain)
    promising = [p for p in _structures(sample) if total_bits(p, sample) <= limit]
    fitting = [p for p in promising if p[0] != "groups" or group_rows(nonzero, p[2]).sum(1).max() <= p[1]]
    return min([best, *fitting], key=lambda p: total_bits(p, nonzero))


def _structures(mask: np.ndarray) -> Iterator[tuple[Any, ...]]:
    """Blocks and groups that the shape allows."""
    shape = mask.shape
    if mask.ndim < 2:
        return
    ones = (1,) * (mask.ndim - 2)
    for sizes in BLOCKS:
        if sizes[0] <= shape[0] and sizes[1] <= shape[1]:
            yield ("blocks", *sizes, *ones)
    yield ("blocks", 1, *shape[1:])
    if math.prod(shape[2:]) > 1:
        yield ("blocks", 1, 1, *shape[2:])
    for m in GROUP_SIZES:
        if shape[1] % m == 0 and 0 < (n := int(group_rows(mask, m).sum(1).max())) < m:
            yield ("groups", n, m)


def code_digits(integers: np.ndarray, layer: Layer, cover: np.ndarray) -> np.ndarray:
    """The covered integers as digits: their residues modulo the levels, so that 0 is 0 in every channel."""
    return integers[cover] % layer.levels - (not layer.zeros)


def integers_of(digits: np.ndarray, layer: Layer, cover: np.ndarray, zero_codes: np.ndarray) -> np.ndarray:
    """Back to integers, int64 of the weight's shape.

    Args:
        digits: of the covered elements.
        layer: how they are stored.
        cover: the covered elements.
        zero_codes: code of 0 of each output channel, or of all: ``[C_out]`` or ``[1]``.
    """
    zero = np.broadcast_to(zero_codes.reshape(-1, *(1,) * (cover.ndim - 1)), cover.shape)[cover]
    out = np.zeros(cover.shape, np.int64)
    out[cover] = (digits + (not layer.zeros) + zero) % layer.levels - zero
    return out
