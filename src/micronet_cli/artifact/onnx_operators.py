"""Quantisers as operators that become QuantizeLinear and DequantizeLinear: torch's exporter knows none of 4 bits."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from onnx.helper import make_tensor
from onnxscript import opset21
from torch import Tensor, nn

from micronet_cli.functional.quantization import SMALLEST_STEP, quant_max
from micronet_cli.functional.quantization import codes as codes_of
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize

# Types of activations and their largest codes, from narrow to wide.
UNSIGNED: dict[int, int] = {
    TensorProto.UINT4: 15,
    TensorProto.UINT8: 255,
    TensorProto.UINT16: 65535,
}


def along_channels(values: Tensor, dims: int) -> Tensor:
    """Numbers a channel beside a weight of ``dims`` dimensions: ``[C_out] -> [C_out, 1, ...]``."""
    ones = [1] * (dims - 1)
    return values.view(-1, *ones)


@torch.library.custom_op("micronet::quantize_dequantize", mutates_args=())
def quantize_dequantize(x: Tensor, scale: float, zero_point: int, largest: int) -> Tensor:
    """``x`` rounded to ``(q - zero_point) * scale``, q in 0 .. largest."""
    inverse = x.new_tensor(scale).reciprocal()
    offset = x.new_tensor(-zero_point)
    codes = codes_of(x, inverse, offset, largest)
    return codes.sub_(zero_point).div_(inverse)


@torch.library.custom_op("micronet::dequantize", mutates_args=())
def dequantize(codes: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """``(q - zero_point) * scale`` by output channel: ``[C_out, ...], [C_out], [C_out] -> [C_out, ...]``."""
    dims = codes.dim()
    integers = codes - along_channels(zero_point, dims)
    return integers * along_channels(scale, dims)


@quantize_dequantize.register_fake
def _(x: Tensor, scale: float, zero_point: int, largest: int) -> Tensor:
    return torch.empty_like(x)


@dequantize.register_fake
def _(codes: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return torch.empty_like(codes, dtype=scale.dtype)


def _quantize_linear(x: Any, scale: float, zero_point: int, largest: int) -> Any:
    op: Any = opset21  # its annotations know no values that are traced
    step = np.float32(scale)
    kind = _narrowest_unsigned(largest)
    has_more_codes = largest < UNSIGNED[kind]
    if has_more_codes:
        # The quantiser's own range is narrower than the type's.
        lowest = np.float32(0 - zero_point)
        highest = np.float32(largest - zero_point)
        low = _constant(step * lowest)
        high = _constant(step * highest)
        x = op.Clip(x, low, high)
    step_constant = _constant(step)
    zero_tensor = make_tensor("zero_point", kind, [], [zero_point])
    zero_constant = op.Constant(value=zero_tensor)
    codes = op.QuantizeLinear(x, step_constant, zero_constant)
    return op.DequantizeLinear(codes, step_constant, zero_constant)


def _narrowest_unsigned(largest: int) -> int:
    """The narrowest unsigned type that holds 0 .. ``largest``."""
    for kind, largest_of_type in UNSIGNED.items():
        if largest <= largest_of_type:
            return kind
    raise ValueError(f"largest={largest}: codes must have at most 16 bits")


def _constant(value: np.float32) -> Any:
    number = float(value)
    tensor = make_tensor("value", TensorProto.FLOAT, [], [number])
    return opset21.Constant(value=tensor)


def _dequantize_linear(codes: Any, scale: Any, zero_point: Any) -> Any:
    return opset21.DequantizeLinear(codes, scale, zero_point, axis=0)


OPERATORS = torch.ops.micronet
TRANSLATIONS: dict[Callable, Callable] = {
    OPERATORS.quantize_dequantize.default: _quantize_linear,
    OPERATORS.dequantize.default: _dequantize_linear,
}


class QuantizedActivation(nn.Module):
    """An activation quantiser with its range as constants."""

    def __init__(self, quantizer: ActivationFakeQuantize) -> None:
        super().__init__()
        scale, zero_point = quantizer.qparams()
        codes_a_unit = float(scale)
        self.scale = 1 / codes_a_unit
        self.zero_point = -int(zero_point)
        self.largest = quant_max(quantizer.bits)

    def forward(self, x: Tensor) -> Tensor:
        """Shape unchanged."""
        constants = (self.scale, self.zero_point, self.largest)
        return OPERATORS.quantize_dequantize(x, *constants)


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
        ones = [1] * (weight.dim() - 1)
        per_channel = (len(weight), *ones)
        zero_codes = -zero_point.expand(per_channel).int()
        steps = scale.reciprocal().expand(per_channel)
        integers = torch.round(weight * scale).int()
        codes = integers + zero_codes
        self.register_buffer("codes", codes)
        self.register_buffer("zero_point", zero_codes.flatten())
        self.register_buffer("scale", steps.flatten())
        largest_code = int(codes.max())
        self.largest = max(largest, largest_code)

    def multiply(self, gain: Tensor) -> None:
        """Fold a factor per output channel, ``[C_out]``, into the scales."""
        self._mirror(gain < 0)
        scale = self.scale.double() * gain.abs()
        self.scale = scale.to(self.scale.dtype)
        # Without a gain, or with next to none, every weight is 0.
        vanishes = self._along(self.scale < SMALLEST_STEP)
        zero_codes = self._along(self.zero_point)
        self.codes = torch.where(vanishes, zero_codes, self.codes)

    def _mirror(self, mirrored: Tensor) -> None:
        """Change the sign of the channels that are ``mirrored``, bool ``[C_out]``."""
        # Around the zero point where that keeps the codes in their range, so that symmetric codes stay symmetric.
        twice = 2 * self.zero_point
        largest_codes = self.codes.flatten(1).amax(1)
        keeps_range = (largest_codes <= twice) & (twice <= self.largest)
        ends = torch.where(keeps_range, twice, self.largest)
        mirrored_codes = self._along(ends) - self.codes
        mirrored_zero_point = ends - self.zero_point
        is_mirrored = self._along(mirrored)
        self.codes = torch.where(is_mirrored, mirrored_codes, self.codes)
        self.zero_point = torch.where(mirrored, mirrored_zero_point, self.zero_point)

    def rescale_zeros(self) -> None:
        """Give channels of zeros, whose scale is arbitrary, an ordinary one: runtimes quantise biases in its units.

        A channel whose scale is not a normal number counts as one: runtimes flush such numbers to 0, or divide by them.
        """
        zero_codes = self._along(self.zero_point)
        smallest_normal = torch.finfo(self.scale.dtype).tiny
        is_subnormal = self._along(self.scale < smallest_normal)
        self.codes = torch.where(is_subnormal, zero_codes, self.codes)
        is_zero = self.codes == zero_codes
        is_empty = is_zero.flatten(1).all(1)
        usual = torch.ones(())
        if not is_empty.all():
            usual = self.scale[~is_empty].median()
        self.scale = torch.where(is_empty, usual, self.scale)

    def _along(self, values: Tensor) -> Tensor:
        return along_channels(values, self.codes.dim())

    def forward(self, original: Tensor) -> Tensor:
        """The weight; ``original`` is not read."""
        return OPERATORS.dequantize(self.codes, self.scale, self.zero_point)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep progress, warnings and advice of exporter and quantiser from a user, whom they tell nothing."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
