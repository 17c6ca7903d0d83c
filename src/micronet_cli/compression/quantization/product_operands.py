"""Quantisers of the operands of a network's products of two computed tensors, those of attention above all."""

import re

from torch import nn

from micronet_cli.compression.quantization.bits_rules import Target
from micronet_cli.layers.attention import unfuse_attention
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.layers.products import attach_operand_fake_quantize, detach_operand_fake_quantizers
from micronet_cli.layers.rules import own_shape
from micronet_cli.trace.computed_products import ComputedProducts, computed_products

KEY = "quantize.attention=true"


def products_to_quantize(model: nn.Module) -> ComputedProducts:
    """The network's products; its attention is unfused for them.

    Raises:
        ValueError: there are none.
    """
    unfuse_attention(model)
    products = computed_products(model, own_shape(model))
    if not products.modules:
        raise ValueError(f"{KEY}: the network has no product of two computed tensors; leave it out")
    return products


def attach_operands(
    model: nn.Module, name: str, products: ComputedProducts, target: Target
) -> list[ActivationFakeQuantize]:
    """Give the operands of a module's products their quantisers, in place of inherited ones; these are returned.

    Raises:
        ValueError: the products are out of reach.
    """
    module = model.get_submodule(name)
    detach_operand_fake_quantizers(module)
    if target.activation_bits is None:
        return []
    if name in products.unreachable:
        kind = type(module).__name__
        raise ValueError(
            f"{KEY}: the products of {name or 'the network itself'} ({kind}) are out of reach; leave them in float: "
            f"quantize.rules.float.match='{re.escape(name)}' quantize.rules.float.activation_bits=null"
        )
    attached = []
    for number in products.operands[name]:
        quantizer = target.activation_quantizer()
        assert quantizer is not None
        attach_operand_fake_quantize(module, number, quantizer)
        attached.append(quantizer)
    return attached
