"""A network in another precision than its own, with the codes that it executes in its own.

A weight next to a tie can have another code in another precision, and a range another zero point. What is compared
with a network, or made of it, in another precision must have the codes that the network runs with. Scales are real
numbers, and are computed in that precision.
"""

import torch
from torch import Tensor, nn

from micronet_cli.layers.copies import copied
from micronet_cli.layers.effective_weight import EffectiveWeight, effective_weight, incoming_weight
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, WeightFakeQuantize
from micronet_cli.layers.integer import IntegerActivation, IntegerWeight

HALF = {torch.float16, torch.bfloat16}


class HeldWeight(WeightFakeQuantize):
    """The integers and zero points that a quantiser gives a weight, whatever the precision.

    Attributes:
        integers: of the weight's shape.
        scale, zero_point: [C_out, 1, ...] or 0-dim, as ``range_linear`` has them.

    Args:
        quantizer: in its own precision.
        weight: what it quantises.
        dtype: the precision to come.
    """

    integers: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: WeightFakeQuantize, weight: Tensor, dtype: torch.dtype) -> None:
        super().__init__(quantizer.bits, quantizer.granularity, quantizer.symmetric)
        own_scale, zero_point = quantizer.qparams(weight)
        integers = torch.round(quantizer(weight) * own_scale)
        self.register_buffer("integers", integers)
        self.register_buffer("scale", weight_scale(quantizer, weight, dtype))
        self.register_buffer("zero_point", zero_point)

    def qparams(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point, whatever the weight."""
        return self.scale, self.zero_point

    def forward(self, weight: Tensor) -> Tensor:
        """The integers' values, whatever the weight."""
        return self.integers / self.scale


class HeldRange(ActivationFakeQuantize):
    """The zero point that an activation quantiser has, whatever the precision.

    Attributes:
        scale, zero_point: 0-dim.

    Args:
        quantizer: in its own precision.
        dtype: the precision to come.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: ActivationFakeQuantize, dtype: torch.dtype) -> None:
        super().__init__(quantizer.bits)
        _, zero_point = quantizer.qparams()
        self.register_buffer("scale", range_scale(quantizer, dtype))
        self.register_buffer("zero_point", zero_point)

    def qparams(self) -> tuple[Tensor, Tensor]:
        """As they were."""
        return self.scale, self.zero_point


def weight_scale(quantizer: WeightFakeQuantize, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The scale that a quantiser has for a weight, computed in ``dtype``."""
    in_dtype = copied(quantizer).to(dtype)
    scale, _ = in_dtype.qparams(weight.to(dtype))
    return scale


def range_scale(quantizer: ActivationFakeQuantize, dtype: torch.dtype) -> Tensor:
    """The scale that a quantiser has, computed in ``dtype``."""
    in_dtype = copied(quantizer).to(dtype)
    scale, _ = in_dtype.qparams()
    return scale


def at_least_single(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, in float32 where ``model`` has less: half precision does not tell codes apart."""
    copy = copied(model).eval()
    dtypes = {parameter.dtype for parameter in copy.parameters()}
    if dtypes & HALF:
        return copy.float()
    return copy


@torch.no_grad()
def in_precision(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy in ``dtype`` and in evaluation mode, with the codes that ``model`` executes; for inference alone."""
    copy = at_least_single(model)
    for name, module in list(copy.named_modules()):
        parts = effective_weight(module)
        if parts is not None:
            _hold_weight(parts, incoming_weight(module), dtype)
        if isinstance(module, ActivationFakeQuantize) and _is_recomputed(module, dtype):
            copy.set_submodule(name, HeldRange(module, dtype))
    return copy.to(dtype)


def _hold_weight(parts: EffectiveWeight, incoming: Tensor, dtype: torch.dtype) -> None:
    """Hold the codes of a quantised weight that ``dtype`` could change."""
    quantizer = parts.fake_quantize
    # A packed network holds its integers already.
    if quantizer is None or isinstance(quantizer, IntegerWeight):
        return
    if incoming.dtype != dtype:
        masked = parts.masked(incoming)
        parts.fake_quantize = HeldWeight(quantizer, masked, dtype)


def _is_recomputed(quantizer: ActivationFakeQuantize, dtype: torch.dtype) -> bool:
    """Whether a range would be computed anew in ``dtype``."""
    if isinstance(quantizer, IntegerActivation):
        return False
    scale, _ = quantizer.qparams()
    return scale.dtype != dtype
