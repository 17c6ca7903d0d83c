"""One weight to bytes and back: where its non-zeros are, and their codes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from micronet_cli.artifact.entries import Layer
from micronet_cli.artifact.format import Cursor, Damaged
from micronet_cli.functional.packing import pack_digits, packed_bytes, unpack_digits
from micronet_cli.functional.positions import (
    expand_blocks,
    filled_up,
    group_rows,
    pack_mask,
    patterns,
    ungroup_rows,
    unpack_mask,
    used_blocks,
)

Positions = Sequence[Any]  # as an entry holds them
Shape = Sequence[int]


def covered(positions: Positions, nonzero: np.ndarray) -> np.ndarray:
    """The elements whose codes are stored: every non-zero, and what shares its block or fills its group.

    >>> covered(("blocks", 1, 2), np.array([[True, False, False, False]])).tolist()
    [[True, True, False, False]]
    """
    kind, *rest = positions
    if kind == "all":
        return np.ones_like(nonzero)
    if kind == "blocks":
        used = used_blocks(nonzero, rest)
        return expand_blocks(used, rest, nonzero.shape)
    if kind == "groups":
        n, m = rest
        rows = filled_up(group_rows(nonzero, m), n)
        return ungroup_rows(rows, nonzero.shape)
    return nonzero


def pack_positions(positions: Positions, cover: np.ndarray, whole_bytes: bool = False) -> bytes:
    """Bytes that tell which elements are covered."""
    kind, *rest = positions
    if kind == "all":
        return b""
    if kind == "blocks":
        return pack_mask(used_blocks(cover, rest))
    if kind == "groups":
        n, m = rest
        _, pattern_numbers = patterns(n, m)
        bit_values = 1 << np.arange(m)
        group_bits = group_rows(cover, m) @ bit_values
        numbers = pattern_numbers[group_bits]
        return pack_digits(numbers, math.comb(m, n), whole_bytes)
    return pack_mask(cover)


def positions_bytes(positions: Positions, shape: Shape, whole_bytes: bool = False) -> int:
    """How many bytes ``pack_positions`` makes for a weight of this shape.

    >>> positions_bytes(("all",), (4, 4)), positions_bytes(("mask",), (4, 4)), positions_bytes(("blocks", 2, 2), (4, 4))
    (0, 2, 1)
    """
    kind, *rest = positions
    if kind == "all":
        return 0
    if kind == "groups":
        n, m = rest
        groups = math.prod(shape) // m
        return packed_bytes(groups, math.comb(m, n), whole_bytes)
    bits = math.prod(shape)
    if kind == "blocks":
        bits = math.prod(_block_grid(shape, rest))
    return math.ceil(bits / 8)


def _block_grid(shape: Shape, sizes: Sequence[int]) -> list[int]:
    """How many blocks lie along each dimension; those at the edge may be smaller."""
    grid = []
    for length, size in zip(shape, sizes, strict=True):
        grid.append(math.ceil(length / size))
    return grid


def unpack_positions(positions: Positions, shape: Shape, masks: Cursor, whole_bytes: bool) -> np.ndarray:
    """The covered elements, bool of ``shape``.

    Raises:
        Damaged: the positions do not fit the shape or the stream.
    """
    _check_fit(positions, shape)
    size = positions_bytes(positions, shape, whole_bytes)
    content = masks.take(size)
    kind, *rest = positions
    if kind == "all":
        return np.ones(tuple(shape), bool)
    if kind == "blocks":
        used = unpack_mask(content, _block_grid(shape, rest))
        return expand_blocks(used, rest, shape)
    if kind == "groups":
        n, m = rest
        groups = math.prod(shape) // m
        numbers = unpack_digits(content, groups, math.comb(m, n), whole_bytes)
        pattern_rows, _ = patterns(n, m)
        rows = pattern_rows[numbers]
        return ungroup_rows(rows, shape)
    return unpack_mask(content, shape)


def _check_fit(positions: Positions, shape: Shape) -> None:
    kind, *rest = positions
    if kind == "blocks" and not _blocks_fit(rest, shape):
        raise Damaged("blocks are larger than the weight")
    if kind == "groups":
        _, m = rest
        if len(shape) < 2 or shape[1] % m:
            raise Damaged("groups do not divide the input dimension")


def _blocks_fit(sizes: Sequence[int], shape: Shape) -> bool:
    if len(sizes) != len(shape):
        return False
    return all(size <= length for size, length in zip(sizes, shape, strict=True))


def code_digits(integers: np.ndarray, layer: Layer, cover: np.ndarray) -> np.ndarray:
    """The covered integers as digits: their residues modulo the levels, so that 0 is 0 in every channel.

    >>> code_digits(np.array([-1, 0, 2]), Layer("a", levels=4, zeros=True), np.array([True, True, True])).tolist()
    [3, 0, 2]
    """
    residues = integers[cover] % layer.levels
    if layer.zeros:
        return residues
    # Where 0 is never stored its digit is saved, and the others move down.
    return residues - 1


def integers_of(digits: np.ndarray, layer: Layer, cover: np.ndarray, zero_codes: np.ndarray) -> np.ndarray:
    """Back to integers, int64 of the weight's shape.

    Args:
        digits: of the covered elements.
        layer: how they are stored.
        cover: the covered elements.
        zero_codes: code of 0 of each output channel, or of all: ``[C_out]`` or ``[1]``.
    """
    of_channel = along_channels(zero_codes, cover.ndim)
    zero = np.broadcast_to(of_channel, cover.shape)[cover]
    residues = digits if layer.zeros else digits + 1
    codes = (residues + zero) % layer.levels
    out = np.zeros(cover.shape, np.int64)
    out[cover] = codes - zero
    return out


def along_channels(values: np.ndarray, dims: int) -> np.ndarray:
    """Numbers a channel beside a weight of ``dims`` dimensions: ``[C_out] -> [C_out, 1, ...]``."""
    ones = [1] * (dims - 1)
    return values.reshape(-1, *ones)
