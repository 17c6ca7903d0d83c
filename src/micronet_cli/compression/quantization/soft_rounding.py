"""Stand-ins for the quantisers of a block that learns: weights between two levels, ranges of a learned width."""

import torch
from torch import Tensor, nn

from micronet_cli.compression.quantization.fixed_grid import FixedGrid
from micronet_cli.functional.adaptive_rounding import inverse_rectified_sigmoid, rectified_sigmoid
from micronet_cli.functional.coins import coins
from micronet_cli.functional.learned_step import learned_step
from micronet_cli.functional.quantization import codes, quant_max
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, FakeQuantize

START = 0.4  # of the way from a weight's level to where it was in float; 0.5 is another level's
LEAST_WIDTH = 0.01  # of a range, where learning began with 1


class SoftRounding(FakeQuantize):
    """A weight on its stored grid, each value a learned part of a step above the level below it (AdaRound).

    It begins near the level that it has on the grid, and may go to the next one on the other side of where it was in
    float.

    Args:
        grid: where the levels are.
        weight: the masked weight as it is, on the grid or not.
        in_float: as it was in float.
        mask: True = kept, a pruned weight stays zero; None: all.

    Attributes:
        variables: V, of the weight's shape.
    """

    def __init__(self, grid: FixedGrid, weight: Tensor, in_float: Tensor, mask: Tensor | None) -> None:
        super().__init__(grid.bits)
        self._grid = [grid]  # not a child: it has a place of its own
        self._mask = mask
        level = codes(weight.detach(), grid.scale, grid.zero_point, grid.largest)
        exact = in_float.detach() * grid.scale - grid.zero_point
        beside = exact - level
        self._floor = torch.where(beside < 0, level - 1, level)
        start = level + START * beside.clamp(-1, 1)
        variables = inverse_rectified_sigmoid(start - self._floor)
        self.variables = nn.Parameter(variables)

    def fraction(self) -> Tensor:
        """h(V) in [0, 1]."""
        return rectified_sigmoid(self.variables)

    def forward(self, weight: Tensor) -> Tensor:
        """The soft weight, in the place of ``weight``."""
        return self._weight(self.fraction())

    def rounded(self) -> Tensor:
        """The weight with every value at the nearer of its two levels."""
        is_up = self.fraction() >= 0.5
        zero_or_one = is_up.to(self._floor.dtype)
        return self._weight(zero_or_one)

    def _weight(self, fraction: Tensor) -> Tensor:
        (grid,) = self._grid
        soft_codes = (self._floor + fraction).clamp(0, grid.largest)
        weight = (soft_codes + grid.zero_point) / grid.scale
        if self._mask is None:
            return weight
        return weight * self._mask


class LearnedWidth(FakeQuantize):
    """An activation's range times a learned factor, with LSQ's gradient (arXiv 1902.08153, equation 3).

    A part of the values, drawn anew each time, goes on in float (QDrop, arXiv 2203.05740, equation 7).

    Args:
        quantizer: what it stands in for.
        drop: probability that a value goes on in float.
        generator: draws which.

    Attributes:
        width: the factor, 0-dim.
    """

    def __init__(self, quantizer: ActivationFakeQuantize, drop: float, generator: torch.Generator) -> None:
        super().__init__(quantizer.bits)
        self.width = nn.Parameter(torch.ones_like(quantizer.low))
        self._scale, self._zero_point = quantizer.qparams()
        self._drop = drop
        self._generator = generator

    def factor(self) -> Tensor:
        """The width as it is used, 0-dim."""
        return self.width.clamp_min(LEAST_WIDTH)

    def widen(self, quantizer: ActivationFakeQuantize) -> None:
        """Give the quantiser the learned range."""
        factor = self.factor().detach()
        quantizer.low.mul_(factor)
        quantizer.high.mul_(factor)

    def forward(self, x: Tensor) -> Tensor:
        """Shape and type unchanged."""
        step = self.factor() / self._scale
        largest = quant_max(self.bits)
        quantized = learned_step(x.to(step.dtype), step, self._zero_point, largest, gradient_scale=1.0)
        quantized = quantized.to(x.dtype)
        return mixed(quantized, x, self._drop, self._generator)


def mixed(quantized: Tensor, in_float: Tensor, drop: float, generator: torch.Generator) -> Tensor:
    """``quantized``, but ``in_float`` where a coin of probability ``drop`` says so; shape unchanged."""
    if drop == 0:
        return quantized
    # Drawn on the CPU, so that every device draws the same.
    dropped = coins(quantized.shape, drop, generator)
    zero_or_one = dropped.to(quantized)
    # Weights of 0 and 1 give the two exactly, in less time than ``where``.
    return torch.lerp(quantized, in_float, zero_or_one)
