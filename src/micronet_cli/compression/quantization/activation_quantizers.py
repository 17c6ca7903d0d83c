"""Activation schemes: a tracked range, LSQ, LSQ+ and PACT.

A scheme is what ``quantize.activation`` names: a frozen dataclass whose call ``(bits)`` makes the layer's module.
The modules of LSQ, LSQ+ and PACT are in ``activation_modules``.
"""

from dataclasses import dataclass

from micronet_cli.compression.quantization.activation_modules import LearnedOffsetActivation, LearnedStepActivation
from micronet_cli.functional.calibration import RangeEstimate, min_max, mse
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, check_levels


@dataclass(frozen=True)
class TrackedRange:
    """Range-linear over a moving average of the batches' ranges.

    Attributes:
        decay: of the average, in [0, 1).
        symmetric: a range symmetric to 0 where data are signed.
        estimate: batch -> range: ``min_max``, ``percentile`` or ``mse`` of ``micronet_cli.functional.calibration``.
    """

    decay: float = 0.99
    symmetric: bool = False
    estimate: RangeEstimate = min_max

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay={self.decay}: must be in [0, 1)")

    def __call__(self, bits: float) -> ActivationFakeQuantize:
        """The module of one layer.

        Raises:
            ValueError: a symmetric range with fewer than 3 levels.
        """
        if self.symmetric:
            check_levels("activation_bits", bits, 3, "a symmetric range")
        return ActivationFakeQuantize(bits, self.decay, self.symmetric, self.estimate)


@dataclass(frozen=True)
class ActivationLSQ:
    """Learned step size quantisation of layer inputs (arXiv 1902.08153)."""

    def __call__(self, bits: float) -> LearnedStepActivation:
        """The module of one layer.

        Raises:
            ValueError: fewer than 3 levels.
        """
        check_levels("activation_bits", bits, 3, "LSQ")
        return LearnedStepActivation(bits)


@dataclass(frozen=True)
class ActivationLSQPlus:
    """LSQ+ of layer inputs (arXiv 2004.09576): step and offset are learned.

    Attributes:
        estimate: first batch -> range that step and offset start from.
    """

    estimate: RangeEstimate = mse

    def __call__(self, bits: float) -> LearnedOffsetActivation:
        """The module of one layer.

        Raises:
            ValueError: fewer than 3 levels.
        """
        check_levels("activation_bits", bits, 3, "LSQ+")
        return LearnedOffsetActivation(bits, self.estimate)


@dataclass(frozen=True)
class PACT:
    """Parameterised clipping (Choi et al., arXiv 1805.06085): step alpha / Q_P, alpha learns from clipped values.

    Signed data are clipped at both ends. The paper's decay of alpha is not applied.

    Attributes:
        estimate: first batch -> range that alpha starts from.
    """

    estimate: RangeEstimate = min_max

    def __call__(self, bits: float) -> LearnedStepActivation:
        """The module of one layer.

        Raises:
            ValueError: fewer than 3 levels.
        """
        check_levels("activation_bits", bits, 3, "PACT")
        return LearnedStepActivation(bits, residual=False, estimate=self.estimate)
