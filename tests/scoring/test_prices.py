"""The table of prices: what an operator costs, alone and in a network."""

import pytest
from torch import nn

from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.scoring import score

PRICED = {
    nn.ReLU(): (1, 0),
    nn.ReLU6(): (2, 0),
    nn.SiLU(): (3, 1),
    nn.Sigmoid(): (2, 1),
    nn.Hardswish(): (4, 1),
    nn.GELU(): (4, 1),
    nn.MaxPool2d(2): (0, 0),
    nn.Dropout(): (0, 0),
    nn.Identity(): (0, 0),
}


@pytest.mark.parametrize(("module", "each"), PRICED.items(), ids=lambda x: type(x).__name__)
def test_price_of_an_activation_function(module, each):
    figures = score(nn.Sequential(module), (2, 4, 4))
    assert (figures["multiplications"], figures["additions"]) == (32 * each[0], 32 * each[1])


@pytest.mark.parametrize(("bounds", "each"), [({"min": 0}, 1), ({"max": 6}, 1), ({"min": 0, "max": 6}, 2)])
def test_clamp_multiplies_once_a_bound(bounds, each):
    class Clamp(nn.Module):
        def forward(self, x):
            return x.clamp(**bounds)

    assert score(Clamp(), (2, 4, 4))["multiplications"] == 32 * each


def test_relu_costs_its_inputs_bits_and_other_functions_32():
    for module, ops in ((nn.ReLU(), 32 * 4 / 32), (nn.SiLU(), 32 * 4), (nn.AdaptiveAvgPool2d(1), 2 * 16)):
        model = nn.Sequential(ActivationFakeQuantize(4), module)
        assert score(model, (2, 4, 4))["math_ops"] == ops
    assert score(nn.SiLU(), (2, 4, 4), nonlinearity_bits=8)["math_ops"] == 32 * 4 * 8 / 32


def test_global_average_pool_multiplies_once_a_channel():
    figures = score(nn.AdaptiveAvgPool2d(1), (2, 4, 4))
    assert (figures["multiplications"], figures["additions"]) == (2, 2 * 15)


def test_average_pool_counts_its_windows():
    figures = score(nn.AvgPool2d(2), (2, 4, 4))
    assert (figures["multiplications"], figures["additions"]) == (8, 8 * 3)


def test_layer_norm_and_softmax_by_composition():
    figures = score(nn.LayerNorm(8), (1, 2, 8))  # rows of 8: 2, elements: 16
    assert (figures["multiplications"], figures["additions"]) == (2 * 16 + 3 * 2 + 16, 3 * 16 - 2 + 16)
    figures = score(nn.Softmax(-1), (1, 2, 8))
    assert (figures["multiplications"], figures["additions"]) == (2 * 16, 2 * 16 - 2)


def test_layout_changes_are_free():
    class Layout(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1).flatten(1, 2).transpose(1, 2).contiguous()

    assert score(Layout(), (6, 4, 4))["math_ops"] == 0
