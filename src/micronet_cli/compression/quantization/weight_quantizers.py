"""Weight schemes: range-linear, LSQ, LSQ+, DoReFa, binary and ternary.

A scheme is what ``quantize.weight`` names: a frozen dataclass whose call ``(bits, weight)`` makes the layer's module.
The modules are in ``weight_modules``; range-linear ones are ``WeightFakeQuantize`` itself.
"""

from dataclasses import dataclass

from torch import Tensor

from micronet_cli.compression.quantization.weight_modules import (
    AccumulatorAwareWeight,
    DoReFaWeight,
    LearnedStepWeight,
    MagnitudeWeight,
)
from micronet_cli.functional.accumulator import l1_limit
from micronet_cli.functional.quantization import quant_max
from micronet_cli.functional.weight_schemes import binary, ternary
from micronet_cli.layers.fake_quantize import RangeGranularity, WeightFakeQuantize, check_levels


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
        """The module of one layer.

        Raises:
            ValueError: a symmetric range with fewer than 3 levels.
        """
        if self.symmetric:
            check_levels("weight_bits", bits, 3, "a symmetric range")
        return WeightFakeQuantize(bits, self.granularity, self.symmetric)


@dataclass(frozen=True)
class WeightLSQ:
    """Learned step size quantisation (arXiv 1902.08153); one step a tensor is the paper's granularity."""

    granularity: RangeGranularity = "per_channel"

    def __call__(self, bits: float, weight: Tensor) -> LearnedStepWeight:
        """The module of one layer; the step starts at 2 <|w|> / sqrt(Q_P).

        Raises:
            ValueError: fewer than 3 levels.
        """
        check_levels("weight_bits", bits, 3, "LSQ")
        return LearnedStepWeight(bits, weight, self.granularity, plus=False)


@dataclass(frozen=True)
class WeightLSQPlus:
    """LSQ+ of weights (arXiv 2004.09576): LSQ that starts at the reach of three standard deviations."""

    granularity: RangeGranularity = "per_channel"

    def __call__(self, bits: float, weight: Tensor) -> LearnedStepWeight:
        """The module of one layer.

        Raises:
            ValueError: fewer than 3 levels.
        """
        check_levels("weight_bits", bits, 3, "LSQ+")
        return LearnedStepWeight(bits, weight, self.granularity, plus=True)


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
        """The module of one layer.

        Raises:
            ValueError: fewer than 3 levels, or an accumulator too narrow for a single product.
        """
        check_levels("weight_bits", bits, 3, "accumulator_bits")
        input_levels = quant_max(self.input_bits) + 1
        limit = l1_limit(self.accumulator_bits, input_levels)
        if limit < 1:
            raise ValueError(
                f"activation_bits={self.input_bits}: one product does not fit accumulator_bits={self.accumulator_bits}"
            )
        return AccumulatorAwareWeight(bits, weight, limit)


@dataclass(frozen=True)
class DoReFa:
    """DoReFa-Net's weights (arXiv 1606.06160)."""

    def __call__(self, bits: float, weight: Tensor) -> DoReFaWeight:
        """The module of one layer.

        Raises:
            ValueError: fewer than 3 levels.
        """
        check_levels("weight_bits", bits, 3, "DoReFa")
        return DoReFaWeight(bits)


@dataclass(frozen=True)
class Binary:
    """Sign times mean magnitude of the channel (Rastegari et al., XNOR-Net, arXiv 1603.05279, equation 6).

    There is no level for 0, so a masked layer cannot have them.
    """

    def __call__(self, bits: float, weight: Tensor) -> MagnitudeWeight:
        """The module of one layer.

        Raises:
            ValueError: not 2 levels.
        """
        if quant_max(bits) != 1:
            raise ValueError(f"weight_bits={bits}: binary weights have 2 levels; must be 1")
        return MagnitudeWeight(bits, binary, has_zero=False)


@dataclass(frozen=True)
class Ternary:
    """-a, 0, a by channel (Li et al., Ternary Weight Networks, arXiv 1605.04711, equations 5 and 6); 1.6 bits."""

    def __call__(self, bits: float, weight: Tensor) -> MagnitudeWeight:
        """The module of one layer.

        Raises:
            ValueError: not 3 levels.
        """
        if quant_max(bits) != 2:
            raise ValueError(f"weight_bits={bits}: ternary weights have 3 levels; must be 1.6")
        return MagnitudeWeight(bits, ternary, has_zero=True)
