"""Guards that a network in another precision runs on the codes of its own: weights and ranges next to a tie."""

import torch
from torch import nn

from micronet_cli.layers.effective_weight import attach_effective_weight, attach_mask
from micronet_cli.layers.fake_quantize import (
    ActivationFakeQuantize,
    WeightFakeQuantize,
    attach_input_fake_quantize,
)
from micronet_cli.layers.held_codes import HeldRange, HeldWeight, in_precision
from micronet_cli.layers.integer import IntegerActivation, IntegerWeight

# In steps of 0.02 these are 0, 15 and 3.5: in float32 exactly, a little less in float64.
ROW = [0.0, 0.3, 0.07]
# The zero point of 4 bits is -1.5: in float32 exactly, a little above in float64.
RANGE = (-0.06, 0.54)


def codes_of(quantizer, weight):
    """Integers of a weight, computed in its own precision."""
    scale, _ = quantizer.qparams(weight)
    scaled = quantizer(weight) * scale
    return scaled.round().int().tolist()


def range_on_a_tie():
    quantizer = ActivationFakeQuantize(4)
    quantizer.low.fill_(RANGE[0])
    quantizer.high.fill_(RANGE[1])
    return quantizer.eval()


def network():
    """A linear layer with one weight and one range next to a tie."""
    layer = nn.Linear(3, 1, bias=False)
    layer.weight.data = torch.tensor([ROW])
    attach_effective_weight(layer).fake_quantize = WeightFakeQuantize(4)
    attach_input_fake_quantize(layer, range_on_a_tie())
    return nn.Sequential(layer)


def test_the_planted_ties_fall_to_either_side():
    weight = torch.tensor([ROW])
    quantizer = WeightFakeQuantize(4)
    assert codes_of(quantizer, weight) == [[0, 15, 4]]
    assert codes_of(quantizer, weight.double()) == [[0, 15, 3]]
    assert range_on_a_tie().qparams()[1] == -2
    assert range_on_a_tie().double().qparams()[1] == -1


def test_codes_and_zero_points_stay_and_scales_are_computed_anew():
    model = network()
    double = in_precision(model, torch.float64)
    weight, own_weight = double[0].weight, model[0].weight
    assert weight.dtype == torch.float64
    torch.testing.assert_close(weight.float(), own_weight)
    held = double[0].parametrizations["weight"][0].fake_quantize
    assert isinstance(held, HeldWeight)
    assert held.integers.tolist() == [[0, 15, 4]]
    quantizer = double[0].input_fake_quantize
    assert isinstance(quantizer, HeldRange)
    assert quantizer.zero_point == -2
    assert quantizer.scale == range_on_a_tie().double().qparams()[0]
    scale, _ = WeightFakeQuantize(4).qparams(model[0].parametrizations["weight"].original.double())
    assert torch.equal(held.scale, scale)


def test_it_computes_what_the_network_computes():
    model = network().eval()
    x = torch.tensor([[-0.06, 0.2, 0.5], [0.0, 0.11, 1.0]])
    double = in_precision(model, torch.float64)(x.double())
    assert torch.allclose(double, model(x).double(), rtol=1e-6)


def test_a_mask_keeps_its_zeros():
    model = network()
    attach_mask(model[0]).mask[0, 1] = False
    weight = in_precision(model, torch.float64)[0].weight
    assert weight[0, 1] == 0
    torch.testing.assert_close(weight.float(), model[0].weight)


def test_in_its_own_precision_a_network_is_copied_as_it_is():
    model = network().train()
    copy = in_precision(model, torch.float32)
    assert type(copy[0].parametrizations["weight"][0].fake_quantize) is WeightFakeQuantize
    assert type(copy[0].input_fake_quantize) is ActivationFakeQuantize
    assert not copy.training
    assert model.training


def test_a_packed_network_keeps_its_integers():
    model = network()
    model[0].parametrizations["weight"][0].fake_quantize = IntegerWeight(4, "per_channel", symmetric=False)
    attach_input_fake_quantize(model[0], IntegerActivation(4, 2.0, -3))
    double = in_precision(model, torch.float64)[0]
    assert isinstance(double.parametrizations["weight"][0].fake_quantize, IntegerWeight)
    assert isinstance(double.input_fake_quantize, IntegerActivation)


def test_the_network_is_left_as_it_was():
    model = network()
    in_precision(model, torch.float64)
    assert model[0].weight.dtype == torch.float32
    assert type(model[0].input_fake_quantize) is ActivationFakeQuantize
