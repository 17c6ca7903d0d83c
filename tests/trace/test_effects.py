"""What reaches a product of masks and quantisers, and what does not."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from micronet_cli.layers.effective_weight import attach_mask, effective_weight
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, WeightFakeQuantize, attach_input_fake_quantize
from micronet_cli.layers.products import attach_operand_fake_quantize
from micronet_cli.trace.effects import effects

SHAPE = (1, 4, 4)


class Reading(nn.Module):
    """A layer whose weight a function reads; its own forward is never called."""

    def __init__(self, read):
        super().__init__()
        self.layer = nn.Linear(4, 4, bias=False)
        self.read = read

    def forward(self, x):
        return x @ self.read(self.layer.weight).t()


def compress(model):
    for layer in list(model.modules()):
        if isinstance(layer, nn.Linear):
            attach_mask(layer).fake_quantize = WeightFakeQuantize(4)
            attach_input_fake_quantize(layer, ActivationFakeQuantize(4))
    return model


def test_a_plain_layer_does_what_it_says():
    found = effects(compress(nn.Sequential(nn.Linear(4, 4))), SHAPE)
    assert found.masks == found.weights == {"0"}
    assert "0.input_fake_quantize" in found.quantizers


def test_a_function_of_the_weight_leaves_no_trace_of_the_input_quantiser():
    found = effects(compress(Reading(lambda weight: weight)), SHAPE)
    assert found.masks == found.weights == {"layer"}
    assert "layer.input_fake_quantize" not in found.quantizers


class Case:
    """Something that is made of the weight, and what is left of its compression."""

    def __init__(self, read, masks, weights):
        self.read, self.masks, self.weights = read, masks, weights


COMPUTED = {
    "standardised": Case(lambda weight: F.layer_norm(weight, (4,)), masks=False, weights=False),
    "scaled": Case(lambda weight: weight * 2, masks=True, weights=False),
    "shifted": Case(lambda weight: weight + 1, masks=False, weights=False),
    "transposed": Case(lambda weight: weight.t(), masks=True, weights=True),
}


@pytest.mark.parametrize("case", COMPUTED.values(), ids=COMPUTED)
def test_what_is_made_of_a_weight_may_undo_its_compression(case):
    found = effects(compress(Reading(case.read)), SHAPE)
    assert ("layer" in found.masks) is case.masks
    assert ("layer" in found.weights) is case.weights


def test_a_weight_of_zeros_says_nothing_of_its_mask():
    model = Reading(lambda weight: F.layer_norm(weight, (4,)))
    nn.init.zeros_(model.layer.weight)
    assert "layer" not in effects(compress(model), SHAPE).masks


def test_a_normed_weight_is_masked_behind_its_norm():
    model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 4)))
    assert effects(compress(model), SHAPE).masks == {"0"}


def test_masks_are_as_before():
    model = compress(nn.Sequential(nn.Linear(4, 4)))
    mask = effective_weight(model[0]).mask
    effects(model, SHAPE)
    assert effective_weight(model[0]).mask is mask
    assert mask.all()


def test_without_values_a_plain_layer_is_taken_at_its_word():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 4))
    attach_mask(model[0])
    assert effects(model, SHAPE).masks == {"0"}


def test_products_in_float_are_named_but_not_those_of_layers():
    class Gram(nn.Module):
        def forward(self, x):
            return x @ x.mT

    model = nn.Sequential(nn.Linear(4, 4), Gram())
    assert effects(model, SHAPE).float_products == ("1",)
    for number in (0, 1):
        attach_operand_fake_quantize(model[1], number, ActivationFakeQuantize(4))
    found = effects(model, SHAPE)
    assert found.float_products == ()
    assert found.quantizers == {"1.operand_fake_quantize.0", "1.operand_fake_quantize.1"}
