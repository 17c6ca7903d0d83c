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


def covered(positions: Sequence[Any], nonzero: np.ndarray) -> np.ndarray:
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


def pack_positions(positions: Sequence[Any], cover: np.ndarray, whole_bytes: bool = False) -> bytes:
    """Bytes that tell which elements are covered."""
    kind, *rest = positions
    if kind == "all":
        return b""
    if kind == "blocks":
        return pack_mask(used_blocks(cover, rest))
    if kind == "groups":
        n, m = rest
        _, pattern_numbers = patterns(n, m)
        group_bits = group_rows(cover, m) @ (1 << np.arange(m))
        return pack_digits(pattern_numbers[group_bits], math.comb(m, n), whole_bytes)
    return pack_mask(cover)


def positions_bytes(positions: Sequence[Any], shape: Sequence[int], whole_bytes: bool = False) -> int:
    """How many bytes ``pack_positions`` makes for a weight of this shape.

    >>> positions_bytes(("all",), (4, 4)), positions_bytes(("mask",), (4, 4)), positions_bytes(("blocks", 2, 2), (4, 4))
    (0, 2, 1)
    """
    kind, *rest = positions
    if kind == "all":
        return 0
    if kind == "groups":
        n, m = rest
        return packed_bytes(math.prod(shape) // m, math.comb(m, n), whole_bytes)
    bits = math.prod(shape)
    if kind == "blocks":
        bits = math.prod(_block_grid(shape, rest))
    return math.ceil(bits / 8)


def _block_grid(shape: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """How many blocks lie along each dimension; those at the edge may be smaller."""
    return [math.ceil(length / size) for length, size in zip(shape, sizes, strict=True)]


def unpack_positions(positions: Sequence[Any], shape: Sequence[int], masks: Cursor, whole_bytes: bool) -> np.ndarray:
    """The covered elements, bool of ``shape``.

    Raises:
        Damaged: the positions do not fit the shape or the stream.
    """
    _check_fit(positions, shape)
    content = masks.take(positions_bytes(positions, shape, whole_bytes))
    kind, *rest = positions
    if kind == "all":
        return np.ones(tuple(shape), bool)
    if kind == "blocks":
        used = unpack_mask(content, _block_grid(shape, rest))
        return expand_blocks(used, rest, shape)
    if kind == "groups":
        n, m = rest
        numbers = unpack_digits(content, math.prod(shape) // m, math.comb(m, n), whole_bytes)
        rows, _ = patterns(n, m)
        return ungroup_rows(rows[numbers], shape)
    return unpack_mask(content, shape)


def _check_fit(positions: Sequence[Any], shape: Sequence[int]) -> None:
    kind, *rest = positions
    if kind == "blocks":
        fits = len(rest) == len(shape) and all(size <= length for size, length in zip(rest, shape, strict=True))
        if not fits:
            raise Damaged("blocks are larger than the weight")
    if kind == "groups":
        _, m = rest
        if len(shape) < 2 or shape[1] % m:
            raise Damaged("groups do not divide the input dimension")


def code_digits(integers: np.ndarray, layer: Layer, cover: np.ndarray) -> np.ndarray:
    """The covered integers as digits: their residues modulo the levels, so that 0 is 0 in every channel.

    >>> code_digits(np.array([-1, 0, 2]), Layer("a", levels=4, zeros=True), np.array([True, True, True])).tolist()
    [3, 0, 2]
    """
    residues = integers[cover] % layer.levels
    # Where 0 is never stored its digit is saved, and the others move down.
    return residues if layer.zeros else residues - 1


def integers_of(digits: np.ndarray, layer: Layer, cover: np.ndarray, zero_codes: np.ndarray) -> np.ndarray:
    """Back to integers, int64 of the weight's shape.

    Args:
        digits: of the covered elements.
        layer: how they are stored.
        cover: the covered elements.
        zero_codes: code of 0 of each output channel, or of all: ``[C_out]`` or ``[1]``.
    """
    zero = np.broadcast_to(along_channels(zero_codes, cover.ndim), cover.shape)[cover]
    residues = digits if layer.zeros else digits + 1
    out = np.zeros(cover.shape, np.int64)
    out[cover] = (residues + zero) % layer.levels - zero
    return out


def along_channels(values: np.ndarray, dims: int) -> np.ndarray:
    """Numbers a channel beside a weight of ``dims`` dimensions: ``[C_out] -> [C_out, 1, ...]``."""
    return values.reshape(-1, *(1,) * (dims - 1))
