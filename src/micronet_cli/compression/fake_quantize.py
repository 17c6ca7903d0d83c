"""Fake-quantiser modules: what the network computes with, and what the scorer and the packer read."""

import math

import torch
from torch import Tensor, nn

from micronet_cli.distributed import range_over_ranks
from micronet_cli.functional.quantization import channel_range, fake_quantize, quant_max, range_linear


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
    """Range-linear, asymmetric, one range per output channel, taken anew from the weight itself at every call."""

    def qparams(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point: ``[C_out, ...] -> 2 x [C_out, 1, ...]``."""
        return range_linear(*channel_range(weight.detach()), self.bits)

    def forward(self, weight: Tensor) -> Tensor:
        """Shape unchanged; zeros stay exactly zero; gradient 1."""
        scale, zero_point = self.qparams(weight)
        return fake_quantize(weight, scale, zero_point, quant_max(self.bits), clip_gradient=False)

    def qparams_bits(self, shape: torch.Size) -> int:
        """A 32-bit scale and a zero point at the code's bits for every output channel."""
        return shape[0] * (32 + self.code_bits)


class ActivationFakeQuantize(FakeQuantize):
    """Range-linear, asymmetric, per tensor, over a range tracked while training.

    The range is an exponential moving average of each batch's minimum and maximum with bias correction (Kingma and Ba,
    arXiv 1412.6980, section 3): after t batches the weight of the newest one is (1 - d) / (1 - d^t).

    Attributes:
        low, high: the corrected averages, 0-dim.
        seen: 1 - d^t, 0 before the first batch.
    """

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(self, bits: float, decay: float = 0.99) -> None:
        super().__init__(bits)
        self.decay = decay
        for name in ("low", "high", "seen"):
            self.register_buffer(name, torch.zeros(()))

    def observe(self, x: Tensor) -> None:
        """Take the range of ``x`` into the average."""
        low, high = range_over_ranks(*torch.aminmax(x.detach()))
        self.seen.lerp_(torch.ones_like(self.seen), 1 - self.decay)
        rate = (1 - self.decay) / self.seen
        self.low.lerp_(low.to(self.low.dtype), rate)
        self.high.lerp_(high.to(self.high.dtype), rate)

    def qparams(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point, 0-dim."""
        return range_linear(self.low, self.high, self.bits)

    def forward(self, x: Tensor) -> Tensor:
        """Shape and type unchanged; tracks the range in training mode."""
        if self.training:
            self.observe(x)
        scale, zero_point = self.qparams()
        return fake_quantize(x.to(scale.dtype), scale, zero_point, quant_max(self.bits)).to(x.dtype)

    def qparams_bits(self, shape: torch.Size) -> int:
        """One 32-bit scale and one 32-bit zero point."""
        return 64


def quantize_input(layer: nn.Module, inputs: tuple) -> tuple:
    """Forward pre-hook: the layer's first input through its own quantiser (a function, so that copies stay apart)."""
    return (layer.input_fake_quantize(inputs[0]), *inputs[1:])


def attach_input_fake_quantize(layer: nn.Module, quantizer: FakeQuantize | None) -> None:
    """Quantise the layer's input by ``quantizer``, in place of what was there; None takes it away."""
    hooked = getattr(layer, "input_fake_quantize", None) is not None
    layer.input_fake_quantize = quantizer
    if quantizer is not None and not hooked:
        layer.register_forward_pre_hook(quantize_input)
    elif quantizer is None and hooked:
        for key in [k for k, hook in layer._forward_pre_hooks.items() if hook is quantize_input]:
            del layer._forward_pre_hooks[key]
