"""Weight schemes: range-linear, LSQ, LSQ+, DoReFa, binary and ternary.

A scheme is what ``quantize.weight`` names: a frozen dataclass whose call ``(bits, weight)`` makes the layer's module.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from micronet_cli.functional.accumulator import accumulator_aware, l1_limit, scale_gradient
from micronet_cli.functional.learned_step import learned_step, lsq_plus_step, lsq_step
from micronet_cli.functional.quantization import binary, dorefa, fake_quantize, quant_max, signed_min, ternary
from micronet_cli.layers.fake_quantize import (
    RangeGranularity,
    WeightFakeQuantize,
    check_levels,
    reduced_dims,
)


@dataclass(frozen=True)
class RangeLinear:
    """The weight's own range, in equal steps.

    Attributes:
        granularity: a range for each output channel, or one for the tensor.
        symmetric: integers -n .. n, without a stored zero point (Jacob et al., arXiv 1712.05877).
    """

    granularity: RangeGranularity = "per_channel"
    symmetric: bool = False

    def __call__(self, bits: float, weight: Tensor) -> WeightFakeQuantize:
        """The module of one layer."""
        if self.symmetric:
            check_levels("weight_bits", bits, 3, "a symmetric range")
        return WeightFakeQuantize(bits, self.granularity, self.symmetric)


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
        found = lsq_plus_step(values, quant_max(bits), dims) if plus else lsq_step(values, self.largest_integer, dims)
        self.step = nn.Parameter(found.flatten() if dims else found.reshape(()))

    @property
    def largest_integer(self) -> int:
        """Q_P."""
        return quant_max(self.bits) - self.zero_code

    def size(self, weight: Tensor) -> Tensor:
        """The step as it is used: > 0, [C_out, 1, ...] or 0-dim."""
        step = self.step.abs().clamp_min(torch.finfo(self.step.dtype).eps)
        return step.view(-1, *(1,) * (weight.dim() - 1)) if step.dim() else step

    def qparams(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale (1 / step) and zero point."""
        scale = self.size(weight).detach().reciprocal()
        return scale, torch.full_like(scale, -self.zero_code)

    def forward(self, weight: Tensor) -> Tensor:
        """Shape unchanged; zeros stay exactly zero."""
        step = self.size(weight)
        elements = weight.numel() // step.numel()
        scale = 1 / math.sqrt(elements * self.largest_integer)
        return learned_step(weight, step, torch.full_like(step, -self.zero_code), quant_max(self.bits), scale)

    def qparams_bits(self, shape: torch.Size) -> int:
        """A 32-bit step a channel or tensor."""
        return 32 * self.ranges(shape)


@dataclass(frozen=True)
class WeightLSQ:
    """Learned step size quantisation (arXiv 1902.08153); one step a tensor is the paper's granularity."""

    granularity: RangeGranularity = "per_channel"

    def __call__(self, bits: float, weight: Tensor) -> LearnedStepWeight:
        """The module of one layer; the step starts at 2 <|w|> / sqrt(Q_P)."""
        check_levels("weight_bits", bits, 3, "LSQ")
        return LearnedStepWeight(bits, weight, self.granularity, plus=False)


@dataclass(frozen=True)
class WeightLSQPlus:
    """LSQ+ of weights (arXiv 2004.09576): LSQ that starts at the reach of three standard deviations."""

    granularity: RangeGranularity = "per_channel"

    def __call__(self, bits: float, weight: Tensor) -> LearnedStepWeight:
        """The module of one layer."""
        check_levels("weight_bits", bits, 3, "LSQ+")
        return LearnedStepWeight(bits, weight, self.granularity, plus=True)


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
        step = scale_gradient(self.size(weight), 1 / math.sqrt(elements * self.zero_code))
        return accumulator_aware(weight, step, self.zero_code, self.limit)


@dataclass(frozen=True)
class AccumulatorAware:
    """What ``quantize.accumulator_bits`` puts in the place of a layer's weight scheme.

    Attributes:
        accumulator_bits: width of the signed accumulator.
        input_bits: bits of the layer's input.
    """

    accumulator_bits: int
    input_bits: float

    def __call__(self, bits: float, weight: Tensor) -> AccumulatorAwareWeight:
        """The module of one layer."""
        check_levels("weight_bits", bits, 3, "accumulator_bits")
        limit = l1_limit(self.accumulator_bits, quant_max(self.input_bits) + 1)
        if limit < 1:
            raise ValueError(
                f"activation_bits={self.input_bits}: one product does not fit accumulator_bits={self.accumulator_bits}"
            )
        return AccumulatorAwareWeight(bits, weight, limit)


class DoReFaWeight(WeightFakeQuantize):
    """Weights through tanh, then uniform (Zhou et al., arXiv 1606.06160, equation 9); see ``functional.dorefa``."""

    def __init__(self, bits: float) -> None:
        super().__init__(bits, "per_tensor")
        self.half = quant_max(bits) // 2

    def qparams(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point of the effective weight: integers -n .. n times max |w| / n."""
        magnitude = weight.detach().abs().amax()
        scale = torch.where(magnitude > 0, self.half / magnitude, 1.0)
        return scale, torch.full_like(scale, -self.half)

    def forward(self, weight: Tensor) -> Tensor:
        """Shape unchanged; zeros stay exactly zero."""
        scale, zero_point = self.qparams(weight)
        return fake_quantize(dorefa(weight), scale, zero_point, 2 * self.half, clip_gradient=False)

    def qparams_bits(self, shape: torch.Size) -> int:
        """A 32-bit scale."""
        return 32


@dataclass(frozen=True)
class DoReFa:
    """DoReFa-Net's weights (arXiv 1606.06160)."""

    def __call__(self, bits: float, weight: Tensor) -> DoReFaWeight:
        """The module of one layer."""
        check_levels("weight_bits", bits, 3, "DoReFa")
        return DoReFaWeight(bits)


class MagnitudeWeight(WeightFakeQuantize):
    """One magnitude a channel, times -1, 1 and maybe 0.

    Attributes:
        rounded: weight -> effective weight, with gradient 1.
    """

    def __init__(self, bits: float, rounded: Callable[[Tensor], Tensor], has_zero: bool) -> None:
        super().__init__(bits)
        self.rounded, self.has_zero = rounded, has_zero

    def qparams(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale (1 / magnitude) and zero point -1."""
        magnitude = self.rounded(weight.detach()).abs().flatten(1).amax(1).view(-1, *(1,) * (weight.dim() - 1))
        scale = torch.where(magnitude > 0, 1 / magnitude, 1.0)
        return scale, torch.full_like(scale, -1)

    def forward(self, weight: Tensor) -> Tensor:
        """Shape unchanged; gradient 1."""
        return self.rounded(weight)

    def qparams_bits(self, shape: torch.Size) -> int:
        """A 32-bit magnitude a channel."""
        return 32 * shape[0]


@dataclass(frozen=True)
class Binary:
    """Sign times mean magnitude of the channel (Rastegari et al., XNOR-Net, arXiv 1603.05279, equation 6).

    They hold no zero, so they do not go with masks.
    """

    def __call__(self, bits: float, weight: Tensor) -> MagnitudeWeight:
        """The module of one layer."""
        if quant_max(bits) != 1:
            raise ValueError(f"weight_bits={bits}: binary weights have 2 levels; 1 is wanted")
        return MagnitudeWeight(bits, binary, has_zero=False)


@dataclass(frozen=True)
class Ternary:
    """-a, 0, a by channel (Li et al., Ternary Weight Networks, arXiv 1605.04711, equations 5 and 6); 1.6 bits."""

    def __call__(self, bits: float, weight: Tensor) -> MagnitudeWeight:
        """The module of one layer."""
        if quant_max(bits) != 2:
            raise ValueError(f"weight_bits={bits}: ternary weights have 3 levels; 1.6 is wanted")
        return MagnitudeWeight(bits, ternary, has_zero=True)
