"""Activation schemes: a tracked range, LSQ, LSQ+ and PACT.

A scheme is what ``quantize.activation`` names: a frozen dataclass whose call ``(bits)`` makes the layer's module.
Learned steps start from the first training batch, which also decides whether the data are signed.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.distributed import range_over_ranks
from micronet_cli.functional.calibration import RangeEstimate, min_max, mse
from micronet_cli.functional.learned_step import learned_step, lsq_step
from micronet_cli.functional.quantization import quant_max, range_linear, signed_min
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, check_levels


@dataclass(frozen=True)
class TrackedRange:
    """RangeEstimate-linear over a moving average of the batches' ranges.

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
            raise ValueError(f"decay={self.decay}: a decay in [0, 1) is wanted")

    def __call__(self, bits: float) -> ActivationFakeQuantize:
        """The module of one layer."""
        if self.symmetric:
            check_levels("activation_bits", bits, 3, "a symmetric range")
        return ActivationFakeQuantize(bits, self.decay, self.symmetric, self.estimate)


class LearnedStepActivation(ActivationFakeQuantize):
    """Integers times a learned step, 0 .. 2^b - 1 for unsigned data and -2^(b-1) .. 2^(b-1) - 1 for signed data.

    ``low`` and ``high`` hold the range of the first training batch.

    Attributes:
        step: the parameter, 0-dim; its magnitude is used.
        residual: LSQ's gradient of the step; False: PACT's.
    """

    def __init__(self, bits: float, residual: bool = True, estimate: RangeEstimate = min_max) -> None:
        super().__init__(bits, estimate=estimate)
        self.residual = residual
        self.step = nn.Parameter(torch.ones(()))
        self.started = False

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        # A Python value, so that neither a GPU waits for it nor a compiled graph breaks on it.
        self.started = not self.seen.is_meta and bool(self.seen > 0)

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """RangeEstimate and step from the first batch, the same in every process."""
        self.observe(x)
        found = self.first_step(x.detach())
        _, found = range_over_ranks(found, found)
        self.step.copy_(torch.where(found > 0, found, 1.0))
        self.started = True

    def first_step(self, x: Tensor) -> Tensor:
        """Where the step starts: LSQ's 2 <|x|> / sqrt(Q_P), PACT's range over its number of steps."""
        largest = quant_max(self.bits)
        top = largest + self.zero_point()
        if not self.residual:
            return torch.maximum(self.high / top, self.low / self.zero_point().clamp(max=-1))
        unsigned, signed = (lsq_step(x, value) for value in (largest, largest + signed_min(largest)))
        return torch.where(self.low < 0, signed, unsigned)

    def size(self) -> Tensor:
        """The step as it is used: > 0, 0-dim."""
        return self.step.abs().clamp_min(torch.finfo(self.step.dtype).eps)

    def zero_point(self) -> Tensor:
        """Smallest integer, 0-dim."""
        return torch.where(self.low < 0, float(signed_min(quant_max(self.bits))), 0.0)

    def qparams(self) -> tuple[Tensor, Tensor]:
        """Scale (1 / step) and zero point, 0-dim."""
        return self.size().detach().reciprocal(), self.zero_point()

    def offset(self) -> Tensor | None:
        """A parameter that learns from clipped values, None for none."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        """Shape and type unchanged."""
        if self.training and not self.started:
            self.start(x)
        largest, zero_point, step = quant_max(self.bits), self.zero_point(), self.size()
        top = largest + (zero_point if self.offset() is None else torch.zeros_like(zero_point))  # Q_P
        features = max(x.numel() // max(x.shape[0], 1), 1)
        # PACT learns alpha = Q_P step: the step's gradient and its change are both a Q_P-th of alpha's.
        scale = (features * top).rsqrt() if self.residual else top**-2
        out = learned_step(x.to(step.dtype), step, zero_point, largest, scale, self.residual, self.offset())
        return out.to(x.dtype)


class LearnedOffsetActivation(LearnedStepActivation):
    """LSQ+: integers begin at a learned offset, rounded to a whole number of steps so that 0 stays 0.

    Attributes:
        beta: the offset, in units of the data.
    """

    def __init__(self, bits: float, estimate: RangeEstimate = mse) -> None:
        super().__init__(bits, estimate=estimate)
        self.beta = nn.Parameter(torch.zeros(()))

    def first_step(self, x: Tensor) -> Tensor:
        """The first batch's range over the number of steps; the offset starts at its low end."""
        scale, zero_point = range_linear(self.low, self.high, self.bits)
        self.beta.copy_(zero_point / scale)
        return scale.reciprocal()

    def zero_point(self) -> Tensor:
        """The whole number of steps next to the offset, with 0 inside the range."""
        return torch.round(self.beta.detach() / self.size().detach()).clamp(-quant_max(self.bits), 0)

    def offset(self) -> Tensor | None:
        """The parameter."""
        return self.beta


@dataclass(frozen=True)
class ActivationLSQ:
    """Learned step size quantisation of layer inputs (arXiv 1902.08153)."""

    def __call__(self, bits: float) -> LearnedStepActivation:
        """The module of one layer."""
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
        """The module of one layer."""
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
        """The module of one layer."""
        check_levels("activation_bits", bits, 3, "PACT")
        return LearnedStepActivation(bits, residual=False, estimate=self.estimate)
