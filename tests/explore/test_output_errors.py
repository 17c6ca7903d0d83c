"""Guards the shares of the logits' error: exact where the network is linear, whatever lies behind a layer."""

import copy

import pytest
import torch
from torch import nn

from micronet_cli.compression.quantization.bits_rules import BitsRule
from micronet_cli.compression.quantization.quantizer import Quantizer
from micronet_cli.explore.in_float import float_weights, quantized_layers
from micronet_cli.explore.output_errors import OutputErrors


def quantized(model, rule=".*", bits=3, corrected=()):
    reference = copy.deepcopy(model).eval()
    Quantizer({"some": BitsRule(rule)}, bits, None).attach(model)
    model.eval().requires_grad_(False)
    layers = quantized_layers(model)
    return OutputErrors(model, layers, float_weights(model), reference, {name: layers[name] for name in corrected})


def linear_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4 * 16, 5))


def test_the_shares_of_a_linear_network_add_up_to_one():
    images = torch.randn(12, 3, 6, 6)
    errors = quantized(linear_network(), bits=6)
    errors.measure(images.split(5))
    assert list(errors.shares) == ["3", "1", "0"]
    # Products of two layers' errors are of second order.
    assert sum(errors.shares.values()) == pytest.approx(1, abs=0.02)


def test_the_only_quantised_layer_has_all_of_it():
    errors = quantized(linear_network(), rule="1")
    errors.measure([torch.randn(6, 3, 6, 6)])
    assert errors.shares == {"1": pytest.approx(1, rel=1e-5)}


def test_a_corrected_layer_has_only_what_is_left_beside_the_mean():
    """A constant input makes an error that is nothing but a mean."""
    errors = quantized(linear_network(), rule="0", corrected=("0",))
    errors.measure(torch.ones(4, 3, 6, 6).split(2))
    assert errors.shares["0"] == pytest.approx(0, abs=1e-6)


class Undifferentiable(nn.Module):
    """Writes over what a derivative needs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        x = self.first(x)
        squared = x * x
        x.zero_()
        return self.second(squared)


def test_a_network_without_derivatives_has_no_shares():
    model = Undifferentiable()
    errors = quantized(model)
    errors.measure([torch.randn(3, 4)])
    assert errors.shares == {}
    assert not [module for module in model.modules() if module._forward_pre_hooks]
