"""Rows that a layer reads, and their product with its weight, against the layer itself."""

import pytest
import torch
from timm.layers import StdConv2d
from torch import nn

from micronet_cli.trace.layer_inputs import has_rows, input_rows, product

ALL = 10**6


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        pytest.param(nn.Conv2d(3, 3, 1), True, id="convolution"),
        pytest.param(nn.Linear(3, 3), True, id="linear"),
        pytest.param(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), False, id="reflected padding"),
        pytest.param(StdConv2d(3, 3, 1), False, id="standardised"),
        pytest.param(nn.ConvTranspose2d(3, 3, 1), False, id="transposed"),
        pytest.param(nn.ReLU(), False, id="no weight"),
    ],
)
def test_has_rows_of_a_plain_product_only(layer, expected):
    assert has_rows(layer) is expected


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(nn.Conv2d(4, 6, 3, bias=False), id="plain"),
        pytest.param(nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, bias=False), id="strided and dilated"),
        pytest.param(nn.Conv2d(4, 6, 3, groups=2, padding="same", bias=False), id="grouped"),
        pytest.param(nn.Conv2d(4, 4, (1, 3), groups=4, padding=(0, 1), bias=False), id="depthwise"),
    ],
)
@torch.no_grad()
def test_rows_times_weight_are_the_outputs_of_a_convolution(layer):
    images = torch.randn(2, 4, 7, 6)
    (rows,) = input_rows([nn.Sequential(layer)], "0", [images], ALL, generator())
    expected = layer(images).movedim(1, -1).flatten(0, 2)
    torch.testing.assert_close(product(rows, layer.weight), expected)


@torch.no_grad()
def test_rows_times_weight_are_the_outputs_of_a_linear_layer():
    layer, images = nn.Linear(6, 5, bias=False), torch.randn(2, 4, 7, 6)
    (rows,) = input_rows([nn.Sequential(layer)], "0", [images], ALL, generator())
    assert rows.shape == (1, 56, 6)
    torch.testing.assert_close(product(rows, layer.weight), layer(images).flatten(0, 2))


def test_drawn_positions_are_the_same_in_every_model():
    layer, images = nn.Conv2d(3, 2, 3), torch.randn(2, 3, 8, 8)
    one, other = nn.Sequential(nn.Identity(), layer), nn.Sequential(nn.Hardtanh(-9, 9), layer)
    rows, again = input_rows([one, other], "1", [images, images], 5, generator())
    assert rows.shape == (1, 2 * 2 * 5, 27)
    assert torch.equal(rows, again)


def test_the_rest_of_the_network_need_not_run_and_no_hook_stays():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(99, 1))
    (rows,) = input_rows([model], "0", [torch.ones(2, 3)], 4, generator())
    assert rows.tolist() == [[[1, 1, 1], [1, 1, 1]]]
    assert not model[0]._forward_pre_hooks
