"""Which form of a weight's positions takes the fewest bits in a file."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from micronet_cli.artifact.entries import GROUP_SIZES
from micronet_cli.artifact.stored_weights import covered, positions_bytes
from micronet_cli.functional.positions import group_rows

# Over (C_out, C_in); the kernel goes by elements.
BLOCKS = ((1, 2), (2, 1), (2, 2), (1, 4), (4, 1), (4, 4), (1, 8), (8, 1), (8, 8), (1, 16), (16, 1), (16, 16))
SAMPLE = 64  # output channels by which block shapes are judged first
PLAIN = (("all",), ("mask",))


def smallest_positions(nonzero: np.ndarray, value_bits: float, fewer_bits: float) -> tuple[Any, ...]:
    """The positions that make the weight smallest.

    Args:
        nonzero: bool, of the weight's shape.
        value_bits: of a code.
        fewer_bits: of a code that cannot be 0.
    """

    def total_bits(positions: tuple[Any, ...], mask: np.ndarray) -> float:
        cover = covered(positions, mask)
        covers_zeros = (cover & ~mask).any()
        bits = fewer_bits
        if covers_zeros:
            bits = value_bits
        stored_bits = cover.sum() * bits
        position_bits = 8 * positions_bytes(positions, mask.shape)
        return stored_bits + position_bits

    best_plain = min(PLAIN, key=lambda positions: total_bits(positions, nonzero))
    if nonzero.all():
        return best_plain

    # A few channels tell which structures are worth a look at the whole weight.
    sample = nonzero[:SAMPLE]
    fewest_plain = min(total_bits(positions, sample) for positions in PLAIN)
    limit = 1.1 * fewest_plain
    candidates: list[tuple[Any, ...]] = [best_plain]
    for positions in _structures(sample):
        promising = total_bits(positions, sample) <= limit
        if promising and _holds(positions, nonzero):
            candidates.append(positions)
    return min(candidates, key=lambda positions: total_bits(positions, nonzero))


def _holds(positions: tuple[Any, ...], nonzero: np.ndarray) -> bool:
    """Whether the positions can cover every non-zero: a group holds only so many."""
    if positions[0] != "groups":
        return True
    _, n, m = positions
    return _fullest_group(nonzero, m) <= n


def _fullest_group(nonzero: np.ndarray, m: int) -> int:
    """The most non-zeros that a group of ``m`` holds."""
    in_groups = group_rows(nonzero, m).sum(1)
    return int(in_groups.max())


def _structures(mask: np.ndarray) -> Iterator[tuple[Any, ...]]:
    """Blocks and groups that the shape allows."""
    if mask.ndim < 2:
        return
    out_channels, in_channels, *kernel = mask.shape
    by_element = (1,) * len(kernel)
    for rows, columns in BLOCKS:
        if rows <= out_channels and columns <= in_channels:
            yield ("blocks", rows, columns, *by_element)
    yield ("blocks", 1, in_channels, *kernel)  # filters
    if math.prod(kernel) > 1:
        yield ("blocks", 1, 1, *kernel)  # kernels
    for m in GROUP_SIZES:
        if in_channels % m:
            continue
        n = _fullest_group(mask, m)
        if 0 < n < m:
            yield ("groups", n, m)
