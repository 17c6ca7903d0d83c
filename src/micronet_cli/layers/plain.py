"""The network behind its compression: masks and weight quantisers in the weights, activation quantisers gone."""

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from micronet_cli.layers.copies import copied
from micronet_cli.layers.fake_quantize import (
    attach_input_fake_quantize,
    attach_output_fake_quantize,
)
from micronet_cli.layers.integer import IntegerWeight
from micronet_cli.layers.plain_weights import give_plain_weights
from micronet_cli.layers.products import OPERANDS, detach_operand_fake_quantizers
from micronet_cli.torch_internals import unparametrized

ACTIVATION_PLACES = {"input_fake_quantize", "output_fake_quantize", OPERANDS}


@torch.no_grad()
def strip(model: nn.Module) -> nn.Module:
    """A plain copy of a compressed network.

    Its layers hold the weights that ``model`` computes with (masked, quantised, standardised), and its ``state_dict()``
    has the names that the network had before it was compressed. It computes what ``model`` computes without its
    activation quantisers; those are lost, and with them what training had fitted to their rounding. A layer that
    standardised its weight is the plain convolution of the result.

    Args:
        model: any network, compressed or not; it is left as it was.

    Returns:
        The copy, on the same device and in the same mode, without parametrizations, quantisers or their hooks.

    Raises:
        ValueError: the network was packed, and runs on integers.
    """
    if any(isinstance(module, IntegerWeight) for module in model.modules()):
        raise ValueError("a packed network runs on integers; give the network that was packed")
    plain = without_activation_quantizers(model)
    if is_parametrized(plain):
        return unparametrized(plain)
    give_plain_weights(plain)
    return plain


def without_activation_quantizers(model: nn.Module) -> nn.Module:
    """A copy whose activations stay in float; masks and weight quantisers go on."""
    copy = copied(model)
    for module in list(copy.modules()):
        attach_input_fake_quantize(module, None)
        attach_output_fake_quantize(module, None)
        detach_operand_fake_quantizers(module)
    return copy


def activation_quantizers(model: nn.Module) -> list[str]:
    """Names of the modules whose input, output or operands are quantised, in registration order."""
    found = []
    for name, module in model.named_modules():
        children = {place for place, child in module.named_children() if child is not None}
        if children & ACTIVATION_PLACES:
            found.append(name)
    return found
