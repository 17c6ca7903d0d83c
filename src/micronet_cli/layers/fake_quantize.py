"""Fake-quantiser modules: what the network computes with, and what the scorer and the packer read."""

import math
from collections.abc import Callable
from typing import Any, Literal

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
from micronet_cli.layers.layer_input import first_input, with_first_input
from micronet_cli.torch_internals import forward_hooks_of, forward_pre_hooks_of

RangeGranularity = Literal["per_channel", "per_tensor"]


def check_levels(name: str, bits: float, least: int, what: str) -> None:
    """Raises ValueError unless ``bits`` give at least ``least`` levels."""
    levels = quant_max(bits) + 1
    if levels < least:
        raise ValueError(f"{name}={bits}: {what} needs at least {least} levels")


def reduced_dims(weight: Tensor, granularity: RangeGranularity) -> tuple[int, ...] | None:
    """Dimensions that share a range; None: all."""
    if granularity == "per_tensor":
        return None
    return tuple(range(1, weight.dim()))


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
    """Range-linear, the range taken anew from the weight itself at every call.

    Attributes:
        granularity: a range for each output channel, or one for the tensor.
        symmetric: integers -n .. n around 0 and no stored zero point; else the range's own ends.
        has_zero: whether 0 is among the levels, so that a mask's zeros survive.
    """

    has_zero = True

    def __init__(self, bits: float, granularity: RangeGranularity = "per_channel", symmetric: bool = False) -> None:
        super().__init__(bits)
        self.granularity = granularity
        self.symmetric = symmetric

    def qparams(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point: ``[C_out, ...] -> 2 x [C_out, 1, ...]``, or 0-dim."""
        values = weight.detach()
        if self.granularity == "per_channel":
            low, high = channel_range(values)
        else:
            low, high = tensor_range(values)
        return self.qparams_within(low, high)

    def qparams_within(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point of the range from ``low`` to ``high``, of their shape."""
        if self.symmetric:
            return range_symmetric(low, high, self.bits)
        return range_linear(low, high, self.bits)

    def forward(self, weight: Tensor) -> Tensor:
        """Shape unchanged; zeros stay exactly zero; gradient 1."""
        scale, zero_point = self.qparams(weight)
        return fake_quantize(weight, scale, zero_point, self.largest, clip_gradient=False)

    @property
    def largest(self) -> int:
        """Largest code."""
        largest = quant_max(self.bits)
        # -n .. n are an odd number of integers: an even number of levels leaves one unused.
        if self.symmetric and largest % 2 == 1:
            return largest - 1
        return largest

    def ranges(self, shape: torch.Size) -> int:
        """Number of ranges that a tensor of this shape has."""
        if self.granularity == "per_channel":
            return shape[0]
        return 1

    def qparams_bits(self, shape: torch.Size) -> int:
        """A 32-bit scale and, if asymmetric, a zero point at the code's bits for every range."""
        bits_of_one = 32
        if not self.symmetric:
            bits_of_one += self.code_bits
        return self.ranges(shape) * bits_of_one


class ActivationFakeQuantize(FakeQuantize):
    """Range-linear, per tensor, over a range tracked while training.

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
        self.decay = decay
        self.symmetric = symmetric
        self.estimate = estimate
        self.frozen = False
        for name in ("low", "high", "seen"):
            self.register_buffer(name, torch.zeros(()))

    def observe(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Take the range of ``x``, which is returned, into the average; together with those of other processes."""
        low, high = self.estimate(x.detach(), self.bits)
        low, high = range_over_ranks(low, high)
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
        batch_range = None
        if self.training and not self.frozen:
            batch_range = self.observe(x)
        scale, zero_point = self.qparams()
        largest = quant_max(self.bits)
        clips = True
        # Most batches stay within a tracked range: nothing to clip, and no pass over the tensor's gradient.
        if batch_range is not None and self.estimate is min_max and blocks_pay(x):
            smallest_value, largest_value = batch_range
            low, high = clip_bounds(scale, zero_point, largest)
            clips = bool((smallest_value <= low) | (largest_value >= high))
        out = fake_quantize(x.to(scale.dtype), scale, zero_point, largest, clips)
        return out.to(x.dtype)

    def qparams_bits(self, shape: torch.Size) -> int:
        """One 32-bit scale and one 32-bit zero point."""
        return 64


def quantize_input(layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Forward pre-hook: the layer's input through its own quantiser (a function, so that copies stay apart)."""
    x = first_input(args, kwargs)
    quantized = layer.input_fake_quantize(x)
    return with_first_input(quantized, args, kwargs)


def quantize_output(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    """Forward hook: the module's output through its own quantiser."""
    return module.output_fake_quantize(output)


def attach_input_fake_quantize(layer: nn.Module, quantizer: FakeQuantize | None) -> None:
    """Quantise the layer's input by ``quantizer``, in place of what was there; None takes it away."""
    hooked = getattr(layer, "input_fake_quantize", None) is not None
    if quantizer is not None:
        layer.input_fake_quantize = quantizer
        if not hooked:
            layer.register_forward_pre_hook(quantize_input, with_kwargs=True)
    elif hooked:
        del layer.input_fake_quantize
        _take_away(forward_pre_hooks_of(layer), quantize_input)


def attach_output_fake_quantize(module: nn.Module, quantizer: FakeQuantize | None) -> None:
    """Quantise the module's output by ``quantizer``, in place of what was there; None takes it away."""
    hooked = getattr(module, "output_fake_quantize", None) is not None
    if quantizer is not None:
        module.output_fake_quantize = quantizer
        if not hooked:
            module.register_forward_hook(quantize_output)
    elif hooked:
        del module.output_fake_quantize
        _take_away(forward_hooks_of(module), quantize_output)


def _take_away(hooks: dict[int, Callable], hook: Callable) -> None:
    """Delete every entry of ``hooks`` that is ``hook``."""
    keys = [key for key, registered in hooks.items() if registered is hook]
    for key in keys:
        del hooks[key]
