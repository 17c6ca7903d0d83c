"""Guards the layer that is put back to float for a while: it computes as in float, and afterwards as before."""

import torch
from torch import nn

from micronet_cli.compression.quantization.bits_rules import BitsRule
from micronet_cli.compression.quantization.quantizer import Quantizer
from micronet_cli.explore.in_float import float_weights, in_float, quantized_layers
from micronet_cli.layers.effective_weight import attach_mask, effective_weight
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.layers.products import attach_operand_fake_quantize


def quantized(weight_bits=2, activation_bits=2):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    attach_mask(model[0]).mask[:, 0] = False
    Quantizer({"all": BitsRule(".*")}, weight_bits, activation_bits).attach(model)
    images = torch.randn(5, 3, 6, 6)
    with torch.no_grad():
        model.train()(images)
    return model.eval(), images


@torch.no_grad()
def test_weight_and_input_are_in_float_inside_and_only_there():
    model, images = quantized()
    layer = model[0]
    before = layer(images)
    parts = effective_weight(layer)
    masked = parts.masked(layer.parametrizations.weight.original)
    expected = nn.functional.conv2d(images, masked, layer.bias)
    weights = float_weights(model)
    layer.parametrizations.weight.original.copy_(layer.weight)  # as learned rounding leaves it
    with in_float(layer, weights["0"]):
        assert torch.equal(layer(images), expected)
    assert not torch.equal(before, expected)
    assert torch.equal(layer(images), before)


@torch.no_grad()
def test_a_weight_in_float_stays_what_it_is():
    model, images = quantized(weight_bits=None)
    assert float_weights(model) == {}
    with in_float(model[0], None):
        assert torch.equal(model[0](images), nn.functional.conv2d(images, model[0].weight, model[0].bias))


class Product(nn.Module):
    """Of two computed tensors."""

    def forward(self, x):
        return x @ x


@torch.no_grad()
def test_products_of_computed_tensors_count_as_layers():
    model = nn.Sequential(Product())
    x = torch.randn(4, 4)
    expected = model(x)
    attach_operand_fake_quantize(model[0], 0, ActivationFakeQuantize(2))
    model.train()(x)
    model.eval()
    before = model(x)
    assert list(quantized_layers(model)) == ["0"]
    with in_float(model[0], None):
        assert torch.equal(model(x), expected)
    assert torch.equal(model(x), before)
    assert not torch.equal(before, expected)
