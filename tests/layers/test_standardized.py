"""Layers that standardise their weight: the function stays, and a product sees the mask and the grid."""

import copy

import pytest
import timm.layers
import torch
from torch import nn

from micronet_cli.layers.effective_weight import (
    attach_effective_weight,
    attach_mask,
    effective_weight,
    keep_standardized,
)
from micronet_cli.layers.fake_quantize import WeightFakeQuantize
from micronet_cli.layers.standardized import MARK, as_written, standardize_once
from micronet_cli.trace.trace import Trace

LAYERS = {
    "StdConv2d": lambda: timm.layers.StdConv2d(3, 4, 3),
    "StdConv2dSame": lambda: timm.layers.StdConv2dSame(3, 4, 3, stride=2),
    "ScaledStdConv2d": lambda: timm.layers.ScaledStdConv2d(3, 4, 3, gamma=1.7),
    "ScaledStdConv2dSame": lambda: timm.layers.ScaledStdConv2dSame(3, 4, 3, stride=2, gamma=1.7),
    "grouped": lambda: timm.layers.ScaledStdConv2d(4, 4, 3, groups=2),
}
EXAMPLE = torch.linspace(-1, 1, 4 * 9 * 9, dtype=torch.float64).reshape(1, 4, 9, 9)


def example(layer):
    return EXAMPLE[:, : layer.in_channels]


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_the_function_stays_when_a_mask_is_attached(make):
    layer = make().double()
    expected = layer(example(layer))
    attach_mask(layer)
    assert torch.allclose(layer(example(layer)), expected, rtol=1e-9, atol=1e-12)
    assert torch.allclose(copy.deepcopy(layer)(example(layer)), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_a_product_sees_the_mask_and_the_grid(make):
    layer = make()
    parts = attach_mask(layer)
    parts.fake_quantize = WeightFakeQuantize(2)
    parts.mask[:, 0] = False
    network = Trace(nn.Sequential(layer), (layer.in_channels, 9, 9)).read()
    (weight,) = [network.stored[index] for index in network.weights]
    assert network.stored_bits[network.weights[0]] == 2
    assert weight.nonzeros <= int(parts.mask.sum())
    assert len(layer.weight[0].unique()) <= 4


def test_a_copy_has_its_own_gain():
    layer = LAYERS["ScaledStdConv2d"]()
    attach_mask(layer)
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.gain.mul_(2)
    assert torch.allclose(twin.weight, 2 * layer.weight)


def test_gradients_reach_weight_and_gain():
    layer = LAYERS["ScaledStdConv2d"]()
    attach_mask(layer)
    layer.weight.square().sum().backward()
    assert layer.gain.grad.abs().sum() > 0
    assert layer.parametrizations.weight.original.grad is not None


def test_a_checkpoint_of_an_earlier_version_goes_on_as_it_was():
    layer = LAYERS["StdConv2d"]()
    with as_written(["0.parametrizations.weight.0.mask"]):
        attach_effective_weight(layer)
    assert effective_weight(layer).standardization is None
    assert not [name for name in layer.state_dict() if name.endswith(MARK)]
    marked = LAYERS["StdConv2d"]()
    with as_written([f"0.parametrizations.weight.0.{MARK}"]):
        attach_effective_weight(marked)
    assert effective_weight(marked).standardization is not None


def test_other_layers_keep_their_class():
    layer = nn.Conv2d(3, 4, 3)
    assert attach_effective_weight(layer).standardization is None
    assert list(layer.parametrizations.weight.state_dict()) == ["original"]


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@torch.no_grad()
def test_a_weight_standardised_once_gives_what_it_gave(make):
    layer = make().double()
    twin = copy.deepcopy(layer)
    expected = layer(example(layer))
    standardize_once(nn.Sequential(layer))
    assert torch.allclose(layer(example(layer)), expected, rtol=1e-9, atol=1e-12)
    parts = attach_effective_weight(twin)
    keep_standardized(twin)
    keep_standardized(twin)
    assert parts.standardization is None
    assert parts.took_standardization
    assert torch.allclose(twin(example(twin)), expected, rtol=1e-9, atol=1e-12)
