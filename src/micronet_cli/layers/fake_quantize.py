"""Fake-quantiser modules: what the network computes with, and what the scorer and the packer read."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from micronet_cli.distributed import range_over_ranks
from micronet_cli.functional.cache_blocks import blocks_pay
from micronet_cli.functional.calibration import RangeEstimate, min_max
from micronet_cli.functional.quantization import (
    channel_range,
    clip_bounds,
    fake_quantize,
    quant_max,
    range_linear,
    range_symmetric,
    tensor_range,
)
from micronet_cli.torch_internals import forward_hooks_of, forward_pre_hooks_of

RangeGranularity = Literal["per_channel", "per_tensor"]


def check_levels(name: str, bits: float, least: int, what: str) -> None:
    """Raises ValueError unless ``bits`` give ``least`` levels."""
    if quant_max(bits) + 1 < least:
        raise ValueError(f"{name}={bits}: {what} wants {least} levels at least")


def reduced_dims(weight: Tensor, granularity: RangeGranularity) -> tuple[int, ...] | None:
    """Dimensions that share a range; None: all."""
    return None if granularity == "per_tensor" else tuple(range(1, weight.dim()))


class FakeQuantize(nn.Module):
    """A tensor in, the same tensor with at most ``levels`` values (per channel) out.

    Attributes:
        bits: claimed bits, maybe fractional (2.5 bits: 5 levels).
    """

    def __init__(self, bits: float) -> None:
        super().__init__()
        self.bits = bits

    @property
    def levels(self) -> int:
        """Number of distinct codes."""
        return quant_max(self.bits) + 1

    @property
    def code_bits(self) -> int:
        """Whole bits that hold a code."""
        return math.ceil(math.log2(self.levels))

    def qparams_bits(self, shape: torch.Size) -> int:
        """Bits of the scales and zero points stored beside a tensor of this shape."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Shown in the layer's repr."""
        return f"bits={self.bits}"


class WeightFakeQuantize(FakeQuantize):
    """RangeEstimate-linear, the range taken anew from the weight itself at every call.

    Attributes:
        granularity: a range for each output channel, or one for the tensor.
        symmetric: integers -n .. n around 0 and no stored zero point; else the range's own ends.
        has_zero: whether 0 is among the levels, so that a mask's zeros survive.
    """

    has_zero = True

    def __init__(self, bits: float, granularity: RangeGranularity = "per_channel", symmetric: bool = False) -> None:
        super().__init__(bits)
        self.granularity, self.symmetric = granularity, symmetric

    def qparams(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point: ``[C_out, ...] -> 2 x [C_out, 1, ...]``, or 0-dim."""
        find = channel_range if self.granularity == "per_channel" else tensor_range
        return (range_symmetric if self.symmetric else range_linear)(*find(weight.detach()), self.bits)

    def forward(self, weight: Tensor) -> Tensor:
        """Shape unchanged; zeros stay exactly zero; gradient 1."""
        return fake_quantize(weight, *self.qparams(weight), self.largest, clip_gradient=False)

    @property
    def largest(self) -> int:
        """Largest code."""
        return quant_max(self.bits) - quant_max(self.bits) % 2 * self.symmetric

    def ranges(self, shape: torch.Size) -> int:
        """Number of ranges that a tensor of this shape has."""
        return shape[0] if self.granularity == "per_channel" else 1

    def qparams_bits(self, shape: torch.Size) -> int:
        """A 32-bit scale and, if asymmetric, a zero point at the code's bits for every range."""
        return self.ranges(shape) * (32 + (0 if self.symmetric else self.code_bits))


class ActivationFakeQuantize(FakeQuantize):
    """RangeEstimate-linear, per tensor, over a range tracked while training.

    The range is an exponential moving average of each batch's range with bias correction (Kingma and Ba,
    arXiv 1412.6980, section 3): after t batches the weight of the newest one is (1 - d) / (1 - d^t).

    Attributes:
        low, high: the corrected averages, 0-dim.
        seen: 1 - d^t, 0 before the first batch.
        symmetric: where data are signed a range from -(n + 1) to n steps, from 0 where they are not; else the data's
            own.
        estimate: batch -> its range.
        frozen: the range stays as it is, while training too.
    """

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(
        self, bits: float, decay: float = 0.99, symmetric: bool = False, estimate: RangeEstimate = min_max
    ) -> None:
        super().__init__(bits)
        self.decay, self.symmetric, self.estimate = decay, symmetric, estimate
        self.frozen = False
        for name in ("low", "high", "seen"):
            self.register_buffer(name, torch.zeros(()))

    def observe(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Take the range of ``x``, which is returned, into the average; together with those of other processes."""
        low, high = range_over_ranks(*self.estimate(x.detach(), self.bits))
        self.track(low, high)
        return low, high

    def track(self, low: Tensor, high: Tensor) -> None:
        """Take a range into the average."""
        self.seen.lerp_(torch.ones_like(self.seen), 1 - self.decay)
        rate = (1 - self.decay) / self.seen
        self.low.lerp_(low.to(self.low.dtype), rate)
        self.high.lerp_(high.to(self.high.dtype), rate)

    def qparams(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point, 0-dim."""
        if self.symmetric:
            return range_symmetric(self.low, self.high, self.bits, unsigned=True)
        return range_linear(self.low, self.high, self.bits)

    def forward(self, x: Tensor) -> Tensor:
        """Shape and type unchanged; tracks the range in training mode."""
        batch = self.observe(x) if self.training and not self.frozen else None
        scale, zero_point = self.qparams()
        largest, clips = quant_max(self.bits), True
        if batch is not None and self.estimate is min_max and blocks_pay(x):
            # Most batches stay within a tracked range: nothing to clip, and no pass over the tensor's gradient.
            low, high = clip_bounds(scale, zero_point, largest)
            clips = bool((batch[0] <= low) | (batch[1] >= high))
        return fake_quantize(x.to(scale.dtype), scale, zero_point, largest, clips).to(x.dtype)

    def qparams_bits(self, shape: torch.Size) -> int:
        """One 32-bit scale and one 32-bit zero point."""
        return 64


def quantize_input(layer: nn.Module, inputs: tuple) -> tuple:
    """Forward pre-hook: the layer's first input through its own quantiser (a function, so that copies stay apart)."""
    return (layer.input_fake_quantize(inputs[0]), *inputs[1:])


def quantize_output(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    """Forward hook: the module's output through its own quantiser."""
    return module.output_fake_quantize(output)


def attach_input_fake_quantize(layer: nn.Module, quantizer: FakeQuantize | None) -> None:
    """Quantise the layer's input by ``quantizer``, in place of what was there; None takes it away."""
    _attach(layer, "input_fake_quantize", quantizer, forward_pre_hooks_of(layer), quantize_input)


def attach_output_fake_quantize(module: nn.Module, quantizer: FakeQuantize | None) -> None:
    """Quantise the module's output by ``quantizer``, in place of what was there; None takes it away."""
    _attach(module, "output_fake_quantize", quantizer, forward_hooks_of(module), quantize_output)


def _attach(
    module: nn.Module, name: str, quantizer: FakeQuantize | None, hooks: dict[int, Callable], hook: Callable
) -> None:
    hooked = getattr(module, name, None) is not None
    if quantizer is not None:
        setattr(module, name, quantizer)
        if not hooked:
            register = module.register_forward_pre_hook if hook is quantize_input else module.register_forward_hook
            register(hook)
    elif hooked:
        setattr(module, name, None)
        for key in [k for k, found in hooks.items() if found is hook]:
            del hooks[key]
