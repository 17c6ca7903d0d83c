"""A network without parametrisations computes what it did, and what it was copied from stays."""

import copy

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.nn.utils.parametrize import is_parametrized

from micronet_cli.layers.effective_weight import attach_effective_weight, attach_mask
from micronet_cli.layers.fake_quantize import WeightFakeQuantize
from micronet_cli.layers.plain_weights import give_plain_weights


def compressed(layer):
    attach_mask(layer).mask[0] = False
    attach_effective_weight(layer).fake_quantize = WeightFakeQuantize(4)
    return layer


def test_masks_quantisers_and_norms_are_taken_together():
    torch.manual_seed(0)
    normed = weight_norm(nn.ConvTranspose2d(3, 4, 1))
    model = nn.Sequential(normed, compressed(spectral_norm(nn.Conv2d(4, 4, 1))), compressed(nn.Conv2d(4, 2, 1))).eval()
    twin = copy.deepcopy(model)
    images = torch.randn(2, 3, 5, 5)
    taken = give_plain_weights(twin)
    assert list(taken) == ["0", "1", "2"]
    assert all(is_parametrized(layer) for layer in [*taken.values(), *model])
    assert set(twin.state_dict()) == {f"{number}.{name}" for number in range(3) for name in ("weight", "bias")}
    assert torch.equal(twin(images), model(images))


def test_only_the_layers_that_were_named_are_replaced():
    model = nn.Sequential(compressed(nn.Linear(3, 3)), compressed(nn.Linear(3, 3)))
    assert list(give_plain_weights(model, {model[1]})) == ["1"]
    assert [is_parametrized(layer) for layer in model] == [True, False]


def test_a_layer_that_two_modules_hold_stays_one():
    layer = compressed(nn.Linear(3, 3))
    model = nn.Sequential(nn.Sequential(layer), nn.Sequential(layer))
    assert give_plain_weights(model) == {"0.0": layer}
    assert type(model[0][0]) is nn.Linear
    assert model[0][0] is model[1][0]
