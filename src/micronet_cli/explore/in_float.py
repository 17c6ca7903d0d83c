"""One quantised layer put back to float for a while, all others as they are."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from micronet_cli.layers.effective_weight import effective_weight, incoming_weight
from micronet_cli.layers.fake_quantize import WeightFakeQuantize, attach_input_fake_quantize
from micronet_cli.layers.products import OPERANDS, operand_fake_quantizers

FLOAT_BITS = 32


class _Unquantized(WeightFakeQuantize):
    """Gives a weight in float, whatever rounding has made of it."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(FLOAT_BITS)
        self._weight = weight

    def forward(self, weight: Tensor) -> Tensor:
        """The weight in float."""
        return self._weight


def quantized_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Modules whose weight, input or products of two computed tensors are quantised, by name."""
    found = {}
    for name, module in model.named_modules():
        parts = effective_weight(module)
        has_weight = parts is not None and parts.fake_quantize is not None
        has_input = getattr(module, "input_fake_quantize", None) is not None
        if has_weight or has_input or operand_fake_quantizers(module):
            found[name] = module
    return found


@torch.no_grad()
def float_weights(model: nn.Module) -> dict[str, Tensor]:
    """Layer -> what its weight quantiser gets, as a copy; to be taken before the weights are rounded."""
    found = {}
    for name, layer in quantized_layers(model).items():
        parts = effective_weight(layer)
        if parts is not None and parts.fake_quantize is not None:
            found[name] = parts.masked(incoming_weight(layer)).clone()
    return found


@contextmanager
def in_float(layer: nn.Module, weight: Tensor | None) -> Iterator[None]:
    """Within the block the layer computes with its weight and its input in float.

    Args:
        layer: quantised.
        weight: of ``float_weights``; None: the layer's stays as it is.
    """
    parts = effective_weight(layer)
    own_weight_quantizer = None if parts is None else parts.fake_quantize
    own_input_quantizer = getattr(layer, "input_fake_quantize", None)
    own_operands = getattr(layer, OPERANDS, None)
    if parts is not None and weight is not None:
        parts.fake_quantize = _Unquantized(weight)
    if own_input_quantizer is not None:
        attach_input_fake_quantize(layer, None)
    if own_operands is not None:
        setattr(layer, OPERANDS, nn.ModuleDict())
    try:
        yield
    finally:
        if own_operands is not None:
            setattr(layer, OPERANDS, own_operands)
        if own_input_quantizer is not None:
            attach_input_fake_quantize(layer, own_input_quantizer)
        if parts is not None:
            parts.fake_quantize = own_weight_quantizer
