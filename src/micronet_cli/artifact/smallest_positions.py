"""Which form of a weight's positions takes the fewest bits in a file."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from micronet_cli.artifact.entries import GROUP_SIZES
from micronet_cli.artifact.stored_weights import Positions, covered, positions_bytes
from micronet_cli.functional.positions import group_rows

BLOCK_SIDES = (2, 4, 8, 16)  # over C_out and C_in; the kernel goes by elements
SAMPLE = 64  # output channels by which block shapes are judged first
PLAIN: tuple[Positions, ...] = (("all",), ("mask",))


def smallest_positions(nonzero: np.ndarray, value_bits: float, fewer_bits: float) -> Positions:
    """The positions that make the weight smallest.

    Args:
        nonzero: bool, of the weight's shape.
        value_bits: of a code.
        fewer_bits: of a code that cannot be 0.
    """
    whole = Cost(nonzero, value_bits, fewer_bits)
    best_plain = min(PLAIN, key=whole.bits)
    if nonzero.all():
        return best_plain

    # A few channels tell which structures are worth a look at the whole weight.
    sample = Cost(nonzero[:SAMPLE], value_bits, fewer_bits)
    plain_sizes = [sample.bits(positions) for positions in PLAIN]
    limit = 1.1 * min(plain_sizes)
    candidates = [best_plain]
    for positions in _structures(sample.nonzero):
        if sample.bits(positions) > limit:
            continue
        if _holds(positions, nonzero):
            candidates.append(positions)
    return min(candidates, key=whole.bits)


@dataclass(frozen=True)
class Cost:
    """What a weight takes in a file.

    Attributes:
        nonzero: bool, of the weight's shape.
        value_bits: of a code.
        fewer_bits: of a code that cannot be 0.
    """

    nonzero: np.ndarray
    value_bits: float
    fewer_bits: float

    def bits(self, positions: Positions) -> float:
        """Bits of codes and positions, where the codes of these ``positions`` are stored."""
        cover = covered(positions, self.nonzero)
        covered_zeros = cover & ~self.nonzero
        bits = self.fewer_bits
        if covered_zeros.any():
            bits = self.value_bits
        stored_bits = cover.sum() * bits
        position_bits = 8 * positions_bytes(positions, self.nonzero.shape)
        return stored_bits + position_bits


def _holds(positions: Positions, nonzero: np.ndarray) -> bool:
    """Whether the positions can cover every non-zero: a group holds only so many."""
    if positions[0] != "groups":
        return True
    _, n, m = positions
    fullest = _fullest_group(nonzero, m)
    return fullest <= n


def _fullest_group(nonzero: np.ndarray, m: int) -> int:
    """The most non-zeros that a group of ``m`` holds."""
    in_groups = group_rows(nonzero, m).sum(1)
    return int(in_groups.max())


def _structures(mask: np.ndarray) -> Iterator[Positions]:
    """Blocks and groups that the shape allows."""
    if mask.ndim < 2:
        return
    out_channels, in_channels, *kernel = mask.shape
    by_element = (1,) * len(kernel)
    for side in BLOCK_SIDES:
        for rows, columns in ((1, side), (side, 1), (side, side)):
            if rows > out_channels or columns > in_channels:
                continue
            yield "blocks", rows, columns, *by_element
    yield "blocks", 1, in_channels, *kernel  # filters
    if math.prod(kernel) > 1:
        yield "blocks", 1, 1, *kernel  # kernels
    for m in GROUP_SIZES:
        if in_channels % m:
            continue
        n = _fullest_group(mask, m)
        if 0 < n < m:
            yield "groups", n, m
