"""Needed inputs of layers: not zero for every image and read; signs that cancel do not count."""

import torch
from torch import nn

from micronet_cli.compression.pruning.needed_inputs import needed_inputs, plain_copy
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.layers.effective_weight import attach_mask, effective_weight
from micronet_cli.layers.integer import IntegerActivation
from micronet_cli.layers.products import attach_operand_fake_quantize


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))


def test_a_needed_input_is_not_zero_and_read():
    model = two_layers()
    with torch.no_grad():
        model[0].weight[0] = 0
        model[0].bias[0] = 0
        model[0].weight[3] = 0  # its bias is left
        model[2].weight[:, 1] = 0
    needed = needed_inputs(model, (3, 4, 4))
    assert needed["0"].tolist() == [True] * 3
    assert needed["2"].tolist() == [False, False, True, True]


def test_signs_that_cancel_or_are_cut_do_not_make_a_channel_dead():
    model = two_layers()
    with torch.no_grad():
        model[0].weight.fill_(-1)
        model[0].bias.fill_(-1)
    assert needed_inputs(model, (3, 4, 4))["2"].all()


def test_a_layer_executed_twice_needs_what_it_read_at_either_time():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(2, 2, 1)

        def forward(self, x):
            return self.layer(x * torch.tensor([1.0, 0]).view(2, 1, 1)) + self.layer(
                x * torch.tensor([0, 1.0]).view(2, 1, 1)
            )

    model = Twice()
    assert needed_inputs(model, (2, 3, 3))["layer"].tolist() == [True, True]


def test_a_plain_copy_has_effective_weights_and_leaves_the_model():
    model = two_layers().train()
    attach_mask(model[0]).mask[0] = False
    Quantizer({"all": BitsRule(".*")}, 4, None).attach(model)
    twin = plain_copy(model)
    assert effective_weight(twin[0]) is None
    assert not twin[0].weight[0].any()
    assert torch.equal(twin[0].weight, model[0].weight)
    assert not twin.training
    assert model.training
    assert effective_weight(model[0]) is not None


def test_a_layer_that_two_modules_hold_is_one_in_a_plain_copy_too():
    shared = nn.Conv2d(3, 3, 1)
    model = nn.Sequential(nn.Sequential(shared), nn.Sequential(shared))
    attach_mask(shared).mask[0] = False
    twin = plain_copy(model)
    assert twin[0][0] is twin[1][0]
    assert effective_weight(twin[0][0]) is None


def test_a_plain_copy_multiplies_in_float():
    class Gram(nn.Module):
        def forward(self, x):
            return x @ x.mT

    model = nn.Sequential(Gram())
    attach_operand_fake_quantize(model[0], 0, IntegerActivation(2, 1.0, 0))
    x = torch.tensor([[[0.4]]])
    assert model(x) == 0
    assert torch.equal(plain_copy(model)(x), x * x)
    assert model(x) == 0
