"""Quantisers as operators that become QuantizeLinear and DequantizeLinear: torch's exporter knows none of 4 bits."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
import onnx
import torch
from onnxscript import opset21
from torch import Tensor, nn

from micronet_cli.functional.quantization import codes as codes_of
from micronet_cli.functional.quantization import quant_max
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize

# Types of activations and their largest codes.
UNSIGNED = {onnx.TensorProto.UINT4: 15, onnx.TensorProto.UINT8: 255, onnx.TensorProto.UINT16: 65535}


@torch.library.custom_op("micronet::quantize_dequantize", mutates_args=())
def quantize_dequantize(x: Tensor, scale: float, zero_point: int, largest: int) -> Tensor:
    """``x`` rounded to ``(q - zero_point) * scale``, q in 0 .. largest."""
    inverse = x.new_tensor(scale).reciprocal()
    return codes_of(x, inverse, x.new_tensor(-zero_point), largest).sub_(zero_point).div_(inverse)


@torch.library.custom_op("micronet::dequantize", mutates_args=())
def dequantize(codes: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """``(q - zero_point) * scale`` by output channel: ``[C_out, ...], [C_out], [C_out] -> [C_out, ...]``."""
    along = (-1, *(1,) * (codes.dim() - 1))
    return (codes - zero_point.view(along)) * scale.view(along)


@quantize_dequantize.register_fake
def _(x: Tensor, scale: float, zero_point: int, largest: int) -> Tensor:
    return torch.empty_like(x)


@dequantize.register_fake
def _(codes: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return torch.empty_like(codes, dtype=scale.dtype)


def _quantize_linear(x: Any, scale: float, zero_point: int, largest: int) -> Any:
    kind, most = next((kind, most) for kind, most in UNSIGNED.items() if largest <= most)
    op: Any = opset21  # its annotations know no values that are traced
    if largest < most:
        # The type has more codes than the quantiser: clip to its own range.
        low, high = (np.float32(scale) * np.float32(code - zero_point) for code in (0, largest))
        x = op.Clip(x, _constant(low), _constant(high))
    step = _constant(np.float32(scale))
    zero = op.Constant(value=onnx.helper.make_tensor("zero_point", kind, [], [zero_point]))
    return op.DequantizeLinear(op.QuantizeLinear(x, step, zero), step, zero)


def _constant(value: np.float32) -> Any:
    return opset21.Constant(value=onnx.helper.make_tensor("value", onnx.TensorProto.FLOAT, [], [float(value)]))


def _dequantize_linear(codes: Any, scale: Any, zero_point: Any) -> Any:
    return opset21.DequantizeLinear(codes, scale, zero_point, axis=0)


TRANSLATIONS: dict[Callable, Callable] = {
    torch.ops.micronet.quantize_dequantize.default: _quantize_linear,
    torch.ops.micronet.dequantize.default: _dequantize_linear,
}


class QuantizedActivation(nn.Module):
    """An activation quantiser with its range as constants."""

    def __init__(self, quantizer: ActivationFakeQuantize) -> None:
        super().__init__()
        scale, zero_point = quantizer.qparams()
        self.scale, self.zero_point = 1 / float(scale), -int(zero_point)
        self.largest = quant_max(quantizer.bits)

    def forward(self, x: Tensor) -> Tensor:
        """Shape unchanged."""
        return torch.ops.micronet.quantize_dequantize(x, self.scale, self.zero_point, self.largest)


class QuantizedWeight(nn.Module):
    """Parametrization: a weight from its integer codes, weight = (codes - zero_point) * scale.

    Attributes:
        codes: int32, 0 .. largest, the weight's shape.
        scale, zero_point: [C_out], float32 and int32.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, weight: Tensor, scale: Tensor, zero_point: Tensor, largest: int) -> None:
        super().__init__()
        per_channel = (len(weight), *(1,) * (weight.dim() - 1))
        zero = -zero_point.expand(per_channel).int()
        self.register_buffer("codes", torch.round(weight * scale).int() + zero)
        self.register_buffer("zero_point", zero.flatten())
        self.register_buffer("scale", scale.reciprocal().expand(per_channel).flatten())
        self.largest = max(largest, int(self.codes.max()))

    def multiply(self, gain: Tensor) -> None:
        """Fold a factor per output channel, ``[C_out]``, into the scales."""
        along = (-1, *(1,) * (self.codes.dim() - 1))
        # Around the zero point where that keeps the codes in their range, so that symmetric codes stay symmetric.
        twice = 2 * self.zero_point
        fits = (self.codes.flatten(1).amax(1) <= twice) & (twice <= self.largest)
        ends = torch.where(fits, twice, self.largest)
        self.codes = torch.where((gain < 0).view(along), ends.view(along) - self.codes, self.codes)
        self.zero_point = torch.where(gain < 0, ends - self.zero_point, self.zero_point)
        self.codes = torch.where((gain == 0).view(along), self.zero_point.view(along), self.codes)
        self.scale = (self.scale.double() * gain.abs()).to(self.scale.dtype)

    def rescale_zeros(self) -> None:
        """Give channels of zeros, whose scale is arbitrary, an ordinary one: runtimes quantise biases in its units."""
        empty = (self.codes == self.zero_point.view(-1, *(1,) * (self.codes.dim() - 1))).flatten(1).all(1)
        usual = self.scale[~empty].median() if not empty.all() else torch.ones(())
        self.scale = torch.where(empty, usual, self.scale)

    def forward(self, original: Tensor) -> Tensor:
        """The weight; ``original`` is not read."""
        return torch.ops.micronet.dequantize(self.codes, self.scale, self.zero_point)


@contextmanager
def quiet() -> Iterator[None]:
    """Progress, warnings and advice of exporter and quantiser say nothing to a user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
