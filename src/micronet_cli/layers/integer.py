"""Modules of a network that runs on integers: integer weights, integer inputs, one rescale per channel.

With q = round(x s_x) the integers of the input and w those of the weight, a layer computes

    y[c] = factor[c] * sum_i w[c, i] q[i] + bias[c],    factor[c] = step of the weight * BatchNorm's gain / s_x.

The sum is exact in floating point as long as it stays below 2^24 in float32 or 2^53 in float64 (``exact_dtype``), in
whatever order its terms are added.
"""

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from micronet_cli.functional.counting import accumulator_width
from micronet_cli.layers.effective_weight import attach_effective_weight, original_weight
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, FakeQuantize, RangeGranularity, WeightFakeQuantize

EXACT_BELOW = {torch.float32: 2**24, torch.float64: 2**53}


class IntegerWeight(WeightFakeQuantize):
    """Integer weights as they are.

    Attributes:
        step: per channel or tensor where the layer itself computes with ``integers * step``, None where a ``Rescale``
            behind the layer does the rest.
        dtype: type of the integers that the layer computes with, None: the parameter's.
    """

    def __init__(
        self, bits: float, granularity: RangeGranularity, symmetric: bool, step: "Numbers | None" = None
    ) -> None:
        super().__init__(bits, granularity, symmetric)
        self.step = step
        self.dtype: torch.dtype | None = None

    def qparams(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point of the effective weight; integers are their own, so the zero point is 0."""
        zero_point = torch.zeros((), dtype=weight.dtype, device=weight.device)
        if self.step is None:
            scale = torch.ones_like(zero_point)
            return scale, zero_point
        trailing = weight.dim() - 1
        step = self.step(weight.dtype, trailing)
        return 1 / step, zero_point

    def forward(self, weight: Tensor) -> Tensor:
        """Integers, times the step where there is one."""
        if self.step is not None:
            trailing = weight.dim() - 1
            step = self.step(weight.dtype, trailing)
            return weight * step
        if self.dtype is not None:
            return weight.to(self.dtype)
        return weight


class IntegerActivation(ActivationFakeQuantize):
    """Range-linear over a fixed range.

    Attributes:
        scale, zero_point: of the quantiser, as Python numbers: no type conversion rounds them.
        dtype: the output is the integers, in this type at least; None: the output is their real values.
    """

    def __init__(self, bits: float, scale: float, zero_point: int) -> None:
        FakeQuantize.__init__(self, bits)  # nothing is tracked
        self.scale = scale
        self.zero_point = zero_point
        self.dtype: torch.dtype | None = None

    @property
    def codes(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        smallest = self.zero_point
        largest = smallest + self.levels - 1
        return smallest, largest

    def qparams(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point, 0-dim, float64."""
        scale = torch.tensor(self.scale, dtype=torch.float64)
        zero_point = torch.tensor(self.zero_point, dtype=torch.float64)
        return scale, zero_point

    def integers(self, x: Tensor) -> Tensor:
        """``round(scale x)`` within the range, in the type of ``x``."""
        smallest, largest = self.codes
        scaled = x * self.scale
        rounded = torch.round(scaled)
        return rounded.clamp_(smallest, largest)

    def forward(self, x: Tensor) -> Tensor:
        """Shape unchanged."""
        integers = self.integers(x)
        if self.dtype is None:
            return integers / self.scale
        dtype = torch.promote_types(x.dtype, self.dtype)
        return integers.to(dtype)


class Numbers(nn.Module):
    """Numbers a channel, ``[C]`` or ``[1]``: int32 times a power of two, or float32."""

    stored: Tensor

    def __init__(self, stored: Tensor, unit: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("stored", stored)
        self.unit = unit

    def forward(self, dtype: torch.dtype, trailing: int) -> Tensor:
        """The numbers in ``dtype``, with ``trailing`` dimensions of 1 behind the channels."""
        numbers = self.stored.to(dtype)
        numbers = numbers * self.unit
        ones = [1] * trailing
        return numbers.view(-1, *ones)


class Rescale(nn.Module):
    """``factor[c] * sum[c] + bias[c]``: what is left of scales and a BatchNorm behind a layer.

    Attributes:
        factor, bias: per channel; a layer may have no bias.
        trailing: dimensions behind the channels.
    """

    def __init__(self, factor: Numbers, bias: Numbers | None, trailing: int) -> None:
        super().__init__()
        self.factor = factor
        self.bias = bias
        self.trailing = trailing

    def forward(self, sums: Tensor, dtype: torch.dtype) -> Tensor:
        """Shape unchanged, in ``dtype``."""
        factor = self.factor(dtype, self.trailing)
        out = sums.to(dtype)
        out = out * factor
        if self.bias is not None:
            bias = self.bias(dtype, self.trailing)
            out.add_(bias)
        return out


def rescale_output(layer: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    """Forward hook: the layer's sums through its own ``Rescale``."""
    dtype = original_weight(layer).dtype
    return layer.rescale(output, dtype)


def attach_rescale(layer: nn.Module, factor: Numbers, bias: Numbers | None) -> None:
    """Rescale the layer's output; its own bias goes. To be done before its output is quantised."""
    trailing = 0
    if not isinstance(layer, nn.Linear):
        weight = cast(Tensor, layer.weight)
        trailing = weight.dim() - 2
    layer.bias = None
    layer.rescale = Rescale(factor, bias, trailing)
    layer.register_forward_hook(rescale_output)


@torch.no_grad()
def attach_integers(layer: nn.Module, integers: Tensor, quantizer: IntegerWeight, masked: bool) -> None:
    """Put integer weights in the place of the layer's own.

    Args:
        layer: a convolution or linear layer.
        integers: of the weight's shape.
        quantizer: says what they stand for.
        masked: zeros are those of a mask, and skipped.
    """
    weight = attach_effective_weight(layer)
    weight.fake_quantize = quantizer
    original_weight(layer).copy_(integers)
    weight.mask = None
    if masked:
        weight.mask = integers != 0


def integer_input(layer: nn.Module) -> IntegerActivation | None:
    """The quantiser that hands integers to an integer layer, None for any other layer."""
    quantizer = getattr(layer, "input_fake_quantize", None)
    if not isinstance(quantizer, IntegerActivation):
        return None
    if quantizer.dtype is None:
        return None
    return quantizer


def signed_sums(integers: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the positive and of the negative integers of each output channel, int64 ``[C_out]`` each."""
    rows = integers.detach().flatten(1)
    rows = rows.cpu().numpy().astype(np.int64)
    positive = np.maximum(rows, 0).sum(1)
    negative = np.minimum(rows, 0).sum(1)
    return positive, negative


def exact_dtype(integers: Tensor, codes: tuple[int, int]) -> torch.dtype:
    """The smallest floating type that holds every partial sum of the layer exactly.

    Args:
        integers: the layer's weight ``[C_out, ...]``.
        codes: smallest and largest integer of its input.

    Raises:
        ValueError: none does.
    """
    smallest_code, largest_code = codes
    positive, negative = signed_sums(integers)
    # A partial sum leaves terms out, which is as if their input were 0.
    low = min(smallest_code, 0)
    high = max(largest_code, 0)
    highest_sums = positive * high + negative * low
    lowest_sums = positive * low + negative * high
    largest = max(highest_sums.max(), -lowest_sums.min())
    for dtype, limit in EXACT_BELOW.items():
        if largest < limit:
            return dtype
    raise ValueError(f"sums reach {largest}, more than float64 holds exactly")


def certified_widths(model: nn.Module) -> dict[str, np.ndarray]:
    """Layer with integer weights and inputs -> accumulator width of each output channel, ``[C_out]``.

    No input, in whatever order the products are added, overflows a two's complement accumulator of that width; one bit
    less overflows for some input.
    """
    widths = {}
    for name, layer in model.named_modules():
        quantizer = integer_input(layer)
        if quantizer is None:
            continue
        integers = original_weight(layer)
        positive, negative = signed_sums(integers)
        widths[name] = accumulator_width(positive, negative, quantizer.codes)
    return widths
