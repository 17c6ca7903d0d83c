"""Ranges of weights by what rounding changes, and the factor that gives rounded weights their length back.

Shapes: rows ``[R, n]``, one for every range; ends of ranges, factors and errors ``[R, 1]``.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from micronet_cli.functional.quantization import channel_range

RoundedWithin = Callable[[Tensor, Tensor], Tensor]  # ends of the ranges -> the rows rounded on the grid between them
WeightRange = Callable[[Tensor, RoundedWithin], tuple[Tensor, Tensor]]
SHRINKS = 40  # ranges that ``least_error`` tries


def least_error(rows: Tensor, rounded_within: RoundedWithin) -> tuple[Tensor, Tensor]:
    """The range with the smallest ||g w' - w||^2, among each row's own shrunk to 1/40, 2/40 .. 40/40.

    Both ends shrink together (Nagel et al., arXiv 2106.08295, range setting), and g is the factor of ``gain``: without
    it clipping would be paid for by shorter rows. Ties go to the wider range.
    """
    low, high = channel_range(rows)
    best = torch.ones_like(low)
    least = torch.full_like(low, torch.inf)
    for fortieths in range(SHRINKS, 0, -1):
        share = fortieths / SHRINKS
        rounded = rounded_within(low * share, high * share)
        change = gain(rows, rounded) * rounded - rows
        error = change.square().sum(1, keepdim=True)
        best = best.masked_fill(error < least, share)
        least = torch.minimum(error, least)
    return low * best, high * best


def gain(rows: Tensor, rounded: Tensor) -> Tensor:
    """The factor g = <w, w> / <w', w>: g w' reaches as far along w as w itself. 1 where w' does not reach that way.

    A product with g w' then has, over inputs without a preferred direction, the slope against the product with w that
    it should have: 1.

    >>> gain(torch.tensor([[3.0, 1.0], [0.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 0.0]])).tolist()
    [[1.1111111640930176], [1.0]]
    """
    wanted = rows.square().sum(1, keepdim=True)
    reached = (rows * rounded).sum(1, keepdim=True)
    is_usable = reached > 0
    divisor = torch.where(is_usable, reached, 1.0)
    return torch.where(is_usable, wanted / divisor, 1.0)
