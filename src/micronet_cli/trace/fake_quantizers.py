"""torch's own fake-quantise operators: how many codes they leave, and what is stored beside them."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from micronet_cli.torch_internals import returns_one

FUSED = frozenset({"_fused_moving_avg_obs_fq_helper", "fused_moving_avg_obs_fake_quant"})
_PER_TENSOR = frozenset({
    "fake_quantize_per_tensor_affine", "fake_quantize_per_tensor_affine_cachemask",
    "_fake_quantize_learnable_per_tensor_affine",
})  # fmt: skip
_SWITCHED = frozenset({"_fake_quantize_per_tensor_affine_cachemask_tensor_qparams"})
_PER_CHANNEL = frozenset({
    "fake_quantize_per_channel_affine", "fake_quantize_per_channel_affine_cachemask",
    "_fake_quantize_learnable_per_channel_affine",
})  # fmt: skip
FAKE_QUANTIZERS = _PER_TENSOR | _SWITCHED | _PER_CHANNEL | FUSED


@dataclass(frozen=True)
class FakeQuantizing:
    """A call of such an operator.

    Attributes:
        x: what is quantised.
        scale, zero_point: numbers, or tensors of one for each channel.
        quant_min, quant_max: smallest and largest code.
        axis: dimension of the channels, None for one range.
        enabled: False where it hands ``x`` on.
    """

    x: Tensor
    scale: Tensor | float
    zero_point: Tensor | float
    quant_min: int
    quant_max: int
    axis: int | None = None
    enabled: bool = True

    @classmethod
    def of(cls, kind: str, args: tuple) -> "FakeQuantizing":
        """Read it from the operator's arguments."""
        if kind in FUSED:
            x, _, enabled, _, _, scale, zero_point, _, quant_min, quant_max, axis = args[:11]
            per_channel = len(args) > 11 and args[11]
            if not per_channel:
                axis = None
            return cls(x, scale, zero_point, quant_min, quant_max, axis, _is_on(enabled))
        if kind in _SWITCHED:
            x, scale, zero_point, enabled, quant_min, quant_max = args
            return cls(x, scale, zero_point, quant_min, quant_max, enabled=_is_on(enabled))
        if kind in _PER_CHANNEL:
            x, scale, zero_point, axis, quant_min, quant_max = args[:6]
            return cls(x, scale, zero_point, quant_min, quant_max, axis)
        x, scale, zero_point, quant_min, quant_max = args[:5]
        return cls(x, scale, zero_point, quant_min, quant_max)

    def run(self) -> Tensor:
        """What the operator makes, with the scale as it is: nothing is observed."""
        if self.x.is_meta or not self.enabled:
            return torch.clone(self.x)
        limits = (self.quant_min, self.quant_max)
        if self.axis is None:
            scale = float(self.scale)
            zero_point = round(float(self.zero_point))
            return torch.fake_quantize_per_tensor_affine(self.x, scale, zero_point, *limits)
        zero_points = torch.as_tensor(self.zero_point).round().int()
        return torch.fake_quantize_per_channel_affine(self.x, self.scale, zero_points, self.axis, *limits)

    @property
    def bits(self) -> int:
        """Whole bits that hold a code."""
        codes = self.quant_max - self.quant_min + 1
        return max(math.ceil(math.log2(codes)), 1)

    @property
    def codes(self) -> tuple[int, int] | None:
        """Smallest and largest code minus zero's, None where there are several."""
        on_meta = isinstance(self.zero_point, Tensor) and self.zero_point.is_meta
        if self.axis is not None or on_meta:
            return None
        zero_point = round(float(self.zero_point))
        return self.quant_min - zero_point, self.quant_max - zero_point

    @property
    def weight_qparams_bits(self) -> int:
        """A 32-bit scale and, if one is not 0, a zero point at the code's bits for every range."""
        zero_points = torch.as_tensor(self.zero_point)
        bits_of_one = 32
        if zero_points.is_meta or bool(zero_points.any()):
            bits_of_one += self.bits
        return torch.as_tensor(self.scale).numel() * bits_of_one


def run_fake_quantizer(operator: Any, kind: str, args: tuple) -> Tensor | tuple[Tensor, Tensor]:
    """The operator's result; which codes were clamped is not marked."""
    out = FakeQuantizing.of(kind, args).run()
    if returns_one(operator):
        return out
    return out, torch.empty_like(out, dtype=torch.bool)


def _is_on(switch: Any) -> bool:
    if isinstance(switch, Tensor) and switch.is_meta:
        return True
    return bool(switch)
