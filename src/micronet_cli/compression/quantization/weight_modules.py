"""Weight quantisers with a grid of their own: a learned step, A2Q, DoReFa, one magnitude a channel."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from micronet_cli.functional.accumulator import accumulator_aware, scale_gradient
from micronet_cli.functional.learned_step import learned_step, lsq_plus_step, lsq_step
from micronet_cli.functional.quantization import fake_quantize, quant_max, signed_min
from micronet_cli.functional.weight_schemes import dorefa
from micronet_cli.layers.fake_quantize import RangeGranularity, WeightFakeQuantize, reduced_dims

FLOAT_BITS = 32  # of a stored step, scale or magnitude


class LearnedStepWeight(WeightFakeQuantize):
    """Signed weights times a learned step (Esser et al., LSQ, arXiv 1902.08153).

    Attributes:
        step: the parameter, [C_out] or 0-dim. A network may take it through 0; its magnitude is used.
        zero_code: code of the integer 0; codes count up from the smallest integer.
    """

    def __init__(self, bits: float, weight: Tensor, granularity: RangeGranularity, plus: bool) -> None:
        super().__init__(bits, granularity)
        largest_code = quant_max(bits)
        self.zero_code = -signed_min(largest_code)
        self.step = self._first_step(weight, plus)

    def _first_step(self, weight: Tensor, plus: bool) -> nn.Parameter:
        """LSQ's or, with ``plus``, LSQ+'s step for this weight."""
        values = weight.detach()
        values = values.float()
        dims = reduced_dims(weight, self.granularity)
        if plus:
            largest_code = quant_max(self.bits)
            step = lsq_plus_step(values, largest_code, dims)
        else:
            step = lsq_step(values, self.largest_integer, dims)
        shape = () if dims is None else (-1,)
        step = step.reshape(shape)
        return nn.Parameter(step)

    @property
    def largest_integer(self) -> int:
        """Q_P."""
        largest_code = quant_max(self.bits)
        return largest_code - self.zero_code

    def size(self, weight: Tensor) -> Tensor:
        """The step as it is used: > 0, [C_out, 1, ...] or 0-dim."""
        smallest = torch.finfo(self.step.dtype).eps
        magnitude = self.step.abs()
        step = magnitude.clamp_min(smallest)
        if step.dim() == 0:
            return step
        return _by_channel(step, weight)

    def qparams(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale (1 / step) and zero point."""
        step = self.size(weight)
        step = step.detach()
        scale = step.reciprocal()
        zero_point = torch.full_like(scale, -self.zero_code)
        return scale, zero_point

    def forward(self, weight: Tensor) -> Tensor:
        """Shape unchanged; zeros stay exactly zero."""
        step = self.size(weight)
        zero_point = torch.full_like(step, -self.zero_code)
        largest_code = quant_max(self.bits)
        weights_of_a_step = weight.numel() // step.numel()
        gradient_scale = 1 / math.sqrt(weights_of_a_step * self.largest_integer)
        return learned_step(weight, step, zero_point, largest_code, gradient_scale)

    def qparams_bits(self, shape: torch.Size) -> int:
        """A 32-bit step a channel or tensor."""
        steps = self.ranges(shape)
        return FLOAT_BITS * steps


class AccumulatorAwareWeight(LearnedStepWeight):
    """A2Q (arXiv 2308.13504): integers whose products with the input fit a chosen accumulator; see ``accumulator``.

    Integers are -n .. n.

    Attributes:
        limit: largest sum of magnitudes of a channel's integers.
    """

    def __init__(self, bits: float, weight: Tensor, limit: int) -> None:
        super().__init__(bits, weight, "per_channel", plus=False)
        self.zero_code = self.largest_integer
        self.limit = limit

    @property
    def largest_integer(self) -> int:
        """The n of its integers."""
        largest_code = quant_max(self.bits)
        return largest_code // 2

    def forward(self, weight: Tensor) -> Tensor:
        """Shape unchanged; zeros stay exactly zero."""
        channels = weight.shape[0]
        weights_of_a_step = weight.numel() // channels
        gradient_scale = 1 / math.sqrt(weights_of_a_step * self.zero_code)
        step = self.size(weight)
        step = scale_gradient(step, gradient_scale)
        return accumulator_aware(weight, step, self.zero_code, self.limit)


class DoReFaWeight(WeightFakeQuantize):
    """Weights through tanh, then uniform (Zhou et al., arXiv 1606.06160, equation 9); see ``functional.dorefa``.

    Attributes:
        half: the n of its integers -n .. n.
    """

    def __init__(self, bits: float) -> None:
        super().__init__(bits, "per_tensor")
        largest_code = quant_max(bits)
        self.half = largest_code // 2

    def qparams(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point of the effective weight: integers -n .. n times max |w| / n."""
        magnitudes = weight.detach().abs()
        largest = magnitudes.amax()
        scale = self.half / largest
        # Without a weight that is not zero every scale is right.
        scale = torch.where(largest > 0, scale, 1.0)
        zero_point = torch.full_like(scale, -self.half)
        return scale, zero_point

    def forward(self, weight: Tensor) -> Tensor:
        """Shape unchanged; zeros stay exactly zero."""
        scale, zero_point = self.qparams(weight)
        squashed = dorefa(weight)
        largest_code = 2 * self.half
        return fake_quantize(squashed, scale, zero_point, largest_code, clip_gradient=False)

    def qparams_bits(self, shape: torch.Size) -> int:
        """A 32-bit scale."""
        return FLOAT_BITS


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
        channels = rounded.abs().flatten(1)
        magnitude = channels.amax(1)
        magnitude = _by_channel(magnitude, weight)
        scale = 1 / magnitude
        # Without a weight that is not zero every scale is right.
        scale = torch.where(magnitude > 0, scale, 1.0)
        zero_point = torch.full_like(scale, -1)
        return scale, zero_point

    def forward(self, weight: Tensor) -> Tensor:
        """Shape unchanged; gradient 1."""
        return self.rounded(weight)

    def qparams_bits(self, shape: torch.Size) -> int:
        """A 32-bit magnitude a channel."""
        channels = shape[0]
        return FLOAT_BITS * channels


def _by_channel(values: Tensor, weight: Tensor) -> Tensor:
    """``[C_out] -> [C_out, 1, ...]``, as many dimensions as ``weight`` has."""
    trailing = weight.dim() - 1
    ones = [1] * trailing
    return values.view(-1, *ones)
