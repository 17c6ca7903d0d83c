"""Activation quantisers whose step, and maybe offset, is learned.

Both start from the first training batch, which also decides whether the data are signed.
"""

from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.distributed import range_over_ranks
from micronet_cli.functional.calibration import RangeEstimate, min_max, mse
from micronet_cli.functional.learned_step import learned_step, lsq_step
from micronet_cli.functional.quantization import quant_max, range_linear, signed_min
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize


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
        self.started = False
        if not self.seen.is_meta:
            self.started = bool(self.seen > 0)

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Range and step from the first batch, the same in every process."""
        self.observe(x)
        values = x.detach()
        step = self.first_step(values)
        _, largest_step = range_over_ranks(step, step)
        # A batch of zeros has no step of its own.
        usable = torch.where(largest_step > 0, largest_step, 1.0)
        self.step.copy_(usable)
        self.started = True

    def first_step(self, x: Tensor) -> Tensor:
        """Where the step starts: LSQ's 2 <|x|> / sqrt(Q_P), PACT's range over its number of steps."""
        if self.residual:
            return self._lsq_first_step(x)
        return self._pact_first_step()

    def _lsq_first_step(self, x: Tensor) -> Tensor:
        largest_unsigned = quant_max(self.bits)
        largest_signed = largest_unsigned + signed_min(largest_unsigned)
        unsigned = lsq_step(x, largest_unsigned)
        signed = lsq_step(x, largest_signed)
        is_signed = self.low < 0
        return torch.where(is_signed, signed, unsigned)

    def _pact_first_step(self) -> Tensor:
        zero_point = self.zero_point()
        largest_integer = quant_max(self.bits) + zero_point
        upper = self.high / largest_integer
        # Unsigned data have nothing below 0; the clamp avoids a division by it.
        smallest_integer = zero_point.clamp(max=-1)
        lower = self.low / smallest_integer
        return torch.maximum(upper, lower)

    def size(self) -> Tensor:
        """The step as it is used: > 0, 0-dim."""
        smallest = torch.finfo(self.step.dtype).eps
        magnitude = self.step.abs()
        return magnitude.clamp_min(smallest)

    def zero_point(self) -> Tensor:
        """Smallest integer, 0-dim."""
        largest = quant_max(self.bits)
        smallest = float(signed_min(largest))
        is_signed = self.low < 0
        return torch.where(is_signed, smallest, 0.0)

    def qparams(self) -> tuple[Tensor, Tensor]:
        """Scale (1 / step) and zero point, 0-dim."""
        step = self.size().detach()
        scale = step.reciprocal()
        zero_point = self.zero_point()
        return scale, zero_point

    def offset(self) -> Tensor | None:
        """A parameter that learns from clipped values, None for none."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        """Shape and type unchanged."""
        if self.training and not self.started:
            self.start(x)
        step = self.size()
        zero_point = self.zero_point()
        out = learned_step(
            x.to(step.dtype),
            step,
            zero_point,
            largest=quant_max(self.bits),
            gradient_scale=self._gradient_scale(x, zero_point),
            residual=self.residual,
            offset=self.offset(),
        )
        return out.to(x.dtype)

    def _gradient_scale(self, x: Tensor, zero_point: Tensor) -> Tensor:
        """Factor on the step's gradient, 0-dim."""
        largest_integer = self._largest_integer(zero_point)
        if not self.residual:
            # PACT learns alpha = Q_P step: the step's gradient and its change are both a Q_P-th of alpha's.
            return largest_integer**-2
        images = max(x.shape[0], 1)
        features = x.numel() // images
        features = max(features, 1)
        return (features * largest_integer).rsqrt()

    def _largest_integer(self, zero_point: Tensor) -> Tensor:
        """Q_P, 0-dim; with an offset integers are counted from it."""
        largest_code = quant_max(self.bits)
        if self.offset() is None:
            return zero_point + largest_code
        return torch.full_like(zero_point, largest_code)


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
        offset = zero_point / scale
        self.beta.copy_(offset)
        return scale.reciprocal()

    def zero_point(self) -> Tensor:
        """The whole number of steps next to the offset, with 0 inside the range."""
        offset = self.beta.detach()
        step = self.size().detach()
        steps = torch.round(offset / step)
        largest = quant_max(self.bits)
        return steps.clamp(-largest, 0)

    def offset(self) -> Tensor | None:
        """The parameter."""
        return self.beta
