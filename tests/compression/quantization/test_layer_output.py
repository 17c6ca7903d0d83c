"""A layer's output behind bias and BatchNorm: as the network gives it, and shifted by what was asked."""

import pytest
import torch
from torch import nn

from micronet_cli.compression.quantization.layer_output import normalised, shift_output
from micronet_cli.trace.chains import chains
from tests.trace.test_batch_norm import random_statistics

SHAPE = (3, 5, 5)


def network(bias, norm):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 5, bias=bias), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.ReLU())
    return random_statistics(model).eval()


def output(model, images):
    return model[:2](images).flatten(1)


with_and_without = pytest.mark.parametrize(
    ("bias", "norm"),
    [
        pytest.param(True, True, id="both"),
        pytest.param(True, False, id="bias"),
        pytest.param(False, True, id="norm"),
        pytest.param(False, False, id="neither"),
    ],
)


@torch.no_grad()
@with_and_without
def test_products_become_what_the_network_gives(bias, norm):
    model = network(bias, norm)
    images = torch.randn(6, *SHAPE)
    products = model[0].weight.flatten(1) @ images.flatten(1).t()
    made = normalised(model, chains(model, SHAPE)["0"])(products).t()
    torch.testing.assert_close(made, output(model, images), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@with_and_without
def test_outputs_move_by_the_change_where_they_can(bias, norm):
    model = network(bias, norm)
    images = torch.randn(6, *SHAPE)
    before = output(model, images)
    change = torch.tensor([1.0, -2.0, 0.0, 0.5])
    shift_output(model, chains(model, SHAPE)["0"], change)
    wanted = before + change if bias or norm else before
    torch.testing.assert_close(output(model, images), wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_channel_of_gain_zero_stays_as_it_is():
    model = network(bias=True, norm=True)
    model[1].weight[2] = 0
    images = torch.randn(6, *SHAPE)
    before = output(model, images)
    shift_output(model, chains(model, SHAPE)["0"], torch.ones(4))
    moved = output(model, images) - before
    torch.testing.assert_close(moved[0], torch.tensor([1.0, 1.0, 0.0, 1.0]), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
def test_a_channel_of_next_to_no_gain_stays_finite(bias):
    model = network(bias=bias, norm=True)
    model[1].weight[2] = 1e-40
    shift_output(model, chains(model, SHAPE)["0"], torch.full((4,), 10.0))
    assert output(model, torch.randn(6, *SHAPE)).isfinite().all()
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
