"""Weight quantisers with a grid of their own: a learned step, A2Q, DoReFa, one magnitude a channel."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from micronet_cli.functional.accumulator import accumulator_aware, scale_gradient
from micronet_cli.functional.learned_step import learned_step, lsq_plus_step, lsq_step
from micronet_cli.functional.quantization import (
    SMALLEST_LEARNED_STEP,
    fake_quantize,
    quant_max,
    signed_min,
    steps_per_unit,
)
from micronet_cli.functional.weight_schemes import dorefa
from micronet_cli.layers.fake_quantize import RangeGranularity, WeightFakeQuantize, reduced_dims


class LearnedStepWeight(WeightFakeQuantize):
    """Signed weights times a learned step (Esser et al., LSQ, arXiv 1902.08153).

    Attributes:
        step: the parameter, [C_out] or 0-dim. A network may take it through 0; its magnitude is used.
    """

    def __init__(self, bits: float, weight: Tensor, granularity: RangeGranularity, plus: bool) -> None:
        super().__init__(bits, granularity)
        self.zero_code = -signed_min(quant_max(bits))
        dims = reduced_dims(weight, granularity)
        values = weight.detach().float()
        step = lsq_step(values, self.largest_integer, dims)
        if plus:
            step = lsq_plus_step(values, quant_max(bits), dims)
        shape = (-1,) if dims else ()
        self.step = nn.Parameter(step.reshape(shape))

    @property
    def largest_integer(self) -> int:
        """Q_P."""
        return quant_max(self.bits) - self.zero_code

    def size(self, weight: Tensor) -> Tensor:
        """The step as it is used: > 0, [C_out, 1, ...] or 0-dim."""
        step = self.step.abs().clamp_min(SMALLEST_LEARNED_STEP)
        if step.dim() == 0:
            return step
        return _by_channel(step, weight)

    def qparams(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale (1 / step) and zero point."""
        scale = self.size(weight).detach().reciprocal()
        return scale, torch.full_like(scale, -self.zero_code)

    def forward(self, weight: Tensor) -> Tensor:
        """Shape unchanged; zeros stay exactly zero."""
        step = self.size(weight)
        zero_point = torch.full_like(step, -self.zero_code)
        elements = weight.numel() // step.numel()
        gradient_scale = 1 / math.sqrt(elements * self.largest_integer)
        return learned_step(weight, step, zero_point, quant_max(self.bits), gradient_scale)

    def qparams_bits(self, shape: torch.Size) -> int:
        """A 32-bit step a channel or tensor."""
        return 32 * self.ranges(shape)


class AccumulatorAwareWeight(LearnedStepWeight):
    """A2Q (arXiv 2308.13504): integers whose products with the input fit a chosen accumulator; see ``accumulator``.

    Integers are -n .. n.

    Attributes:
        limit: largest sum of magnitudes of a channel's integers.
    """

    def __init__(self, bits: float, weight: Tensor, limit: int) -> None:
        super().__init__(bits, weight, "per_channel", plus=False)
        self.zero_code = quant_max(bits) // 2
        self.limit = limit

    @property
    def largest_integer(self) -> int:
        """The n of its integers."""
        return quant_max(self.bits) // 2

    def forward(self, weight: Tensor) -> Tensor:
        """Shape unchanged; zeros stay exactly zero."""
        elements = weight.numel() // weight.shape[0]
        gradient_scale = 1 / math.sqrt(elements * self.zero_code)
        step = scale_gradient(self.size(weight), gradient_scale)
        return accumulator_aware(weight, step, self.zero_code, self.limit)


class DoReFaWeight(WeightFakeQuantize):
    """Weights through tanh, then uniform (Zhou et al., arXiv 1606.06160, equation 9); see ``functional.dorefa``."""

    def __init__(self, bits: float) -> None:
        super().__init__(bits, "per_tensor")
        self.half = quant_max(bits) // 2

    def qparams(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point of the effective weight: integers -n .. n times max |w| / n."""
        magnitude = weight.detach().abs().amax()
        scale = steps_per_unit(magnitude, self.half)
        return scale, torch.full_like(scale, -self.half)

    def forward(self, weight: Tensor) -> Tensor:
        """Shape unchanged; zeros stay exactly zero."""
        scale, zero_point = self.qparams(weight)
        return fake_quantize(dorefa(weight), scale, zero_point, 2 * self.half, clip_gradient=False)

    def qparams_bits(self, shape: torch.Size) -> int:
        """A 32-bit scale."""
        return 32


class MagnitudeWeight(WeightFakeQuantize):
    """One magnitude a channel, times -1, 1 and maybe 0.

    Attributes:
        rounded: weight -> effective weight, with gradient 1.
    """

    def __init__(self, bits: float, rounded: Callable[[Tensor], Tensor], has_zero: bool) -> None:
        super().__init__(bits)
        self.rounded = rounded
        self.has_zero = has_zero

    def qparams(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale (1 / magnitude) and zero point -1."""
        rounded = self.rounded(weight.detach())
        largest = rounded.abs().flatten(1).amax(1)
        magnitude = _by_channel(largest, weight)
        scale = steps_per_unit(magnitude, 1)
        return scale, torch.full_like(scale, -1)

    def forward(self, weight: Tensor) -> Tensor:
        """Shape unchanged; gradient 1."""
        return self.rounded(weight)

    def qparams_bits(self, shape: torch.Size) -> int:
        """A 32-bit magnitude a channel."""
        return 32 * shape[0]


def _by_channel(values: Tensor, weight: Tensor) -> Tensor:
    """``[C_out] -> [C_out, 1, ...]``, as many dimensions as ``weight`` has."""
    ones = [1] * (weight.dim() - 1)
    return values.view(-1, *ones)
