"""Uniform grids that float weights lie on: what a quantiser leaves when its module is gone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MOST_BITS = 8
LARGEST_CODE = 2**MOST_BITS - 1
# A value is a multiple of a step where it is one up to a few roundings of float32 (2^-24 each).
TOLERANCE = 2.0**-21
# A grid is shown by this many times as many non-zero values as it has codes; two values a row say where it lies.
VALUES_A_CODE = 2
FIXING_VALUES = 2
SAMPLED = 16  # values of a row that are looked at first
GLANCED_AT = 16  # values of the first row
SCALE_BITS = 32


@dataclass(frozen=True)
class Grid:
    """Integers times a scale for each row, or one for all.

    Attributes:
        bits: whole bits that hold a code.
        scales: how many.
        offset: whether codes need a zero point for each scale: they fit neither in unsigned nor in two's complement
            numbers of ``bits`` bits.
    """

    bits: int
    scales: int
    offset: bool

    @property
    def scale_bits(self) -> int:
        """Bits of a 32-bit scale and, where there are any, a zero point at the code's bits for every range."""
        bits_of_one = SCALE_BITS
        if self.offset:
            bits_of_one += self.bits
        return self.scales * bits_of_one


def find_grid(rows: Tensor, rounded: bool = False) -> Grid | None:
    """The grid of at most 8 bits that all values lie on, checked value by value; None for floats.

    Args:
        rows: weights, [channels, weights of one].
        rounded: the network rounds to make them. Otherwise there must be many more non-zero values than codes.

    >>> integers = torch.arange(-8.0, 8.0).repeat(2, 3)
    >>> scales = torch.tensor([[0.3], [0.7]])
    >>> find_grid(integers * scales)
    Grid(bits=4, scales=2, offset=False)
    >>> find_grid(integers.exp())
    """
    if rows.is_meta or rows.dtype in (torch.float16, torch.bfloat16):
        return None  # few digits lie on a grid by chance
    if not _may_have_grid(rows):
        return None
    exact = rows.double()
    grids = []
    for ranges in (exact.reshape(1, -1), exact):
        codes = _codes(ranges)
        if codes is not None:
            grids.append(_grid_of(codes, rounded))
    found = [grid for grid in grids if grid is not None]
    # Of equally many bits the one with fewer scales, which comes first.
    return min(found, key=lambda grid: grid.bits, default=None)


def _may_have_grid(rows: Tensor) -> bool:
    """A look at a few values of the first row that holds any; in Python, as there are too few for tensors to pay."""
    for number in range(len(rows)):
        values = rows[number, :GLANCED_AT].tolist()
        if not all(map(math.isfinite, values)):
            return False
        peak = max(map(abs, values))
        if peak > 0:
            ratios = [value / peak for value in values]
            return any(_all_are_multiples(ratios, code) for code in range(1, LARGEST_CODE + 1))
    return True


def _all_are_multiples(ratios: Sequence[float], code: int) -> bool:
    for ratio in ratios:
        in_steps = ratio * code
        nearest = round(in_steps)
        if abs(in_steps - nearest) > TOLERANCE * abs(nearest):
            return False
    return True


def _are_multiples(in_steps: Tensor) -> Tensor:
    nearest = in_steps.round()
    return (in_steps - nearest).abs() <= TOLERANCE * nearest.abs()


def _codes(rows: Tensor) -> Tensor | None:
    """Integers of the coarsest grid through 0 of each row, None where a row has none."""
    peaks = rows.abs().amax(dim=1, keepdim=True)
    peaks = torch.where(peaks > 0, peaks, 1.0)
    ratios = rows / peaks
    owners, peak_codes = _candidates(ratios)
    found = torch.zeros_like(peaks)
    left = torch.arange(len(rows), device=rows.device)
    while len(left):
        if not torch.isin(left, owners).all():
            return None
        first = torch.searchsorted(owners, left)
        codes = peak_codes[first, None]
        is_right = _are_multiples(ratios[left] * codes).all(dim=1)
        found[left[is_right]] = codes[is_right]
        left = left[~is_right]
        untried = torch.ones_like(owners, dtype=torch.bool)
        untried[first] = False
        owners = owners[untried]
        peak_codes = peak_codes[untried]
    return (ratios * found).round()


def _candidates(ratios: Tensor) -> tuple[Tensor, Tensor]:
    """Rows, in order, and what the code of each one's largest magnitude may be, judged by some values."""
    stride = max(ratios.shape[1] // SAMPLED, 1)
    samples = ratios[:, ::stride]
    codes = torch.arange(1, LARGEST_CODE + 1, dtype=ratios.dtype, device=ratios.device)
    # The first value leaves few pairs of a row and a code for the others.
    owners, numbers = torch.nonzero(_are_multiples(samples[:, :1] * codes), as_tuple=True)
    peak_codes = codes[numbers]
    for column in samples.T[1:]:
        likely = _are_multiples(column[owners] * peak_codes)
        owners = owners[likely]
        peak_codes = peak_codes[likely]
    return owners, peak_codes


def _grid_of(codes: Tensor, rounded: bool) -> Grid | None:
    """The grid with these codes, where they show one."""
    is_nonzero = codes != 0
    nonzeros = int(is_nonzero.sum())
    used_rows = int(is_nonzero.any(dim=1).sum())
    values = codes[is_nonzero]
    if not nonzeros or values.min() == values.max():
        return None  # constants are no grid
    has_zeros = nonzeros < codes.numel()
    low = codes.amin(dim=1)
    high = codes.amax(dim=1)
    step = 1
    if not has_zeros and bool((codes % 2 == 1).all()):
        step = 2  # levels on both sides of 0, as -3, -1, 1 and 3
    widest = int((high - low).max()) // step
    bits = max(math.ceil(math.log2(widest + 1)), 1)
    shown_by = nonzeros - FIXING_VALUES * used_rows
    least = 1 if rounded else VALUES_A_CODE * 2**bits
    if bits > MOST_BITS or shown_by < least:
        return None
    return Grid(bits, len(codes), _need_offset(low, high, bits, step))


def _need_offset(low: Tensor, high: Tensor, bits: int, step: int) -> bool:
    if step == 2:
        return not torch.equal(low, -high)
    half = 2 ** (bits - 1)
    lowest = low.min()
    highest = high.max()
    is_signed = lowest >= -half and highest < half
    is_unsigned = lowest >= 0 and highest < 2 * half
    return not (is_signed or is_unsigned)
