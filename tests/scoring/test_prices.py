"""The table of prices: what an operator costs, alone and in a network."""

from typing import NamedTuple

import pytest
from torch import nn

from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.scoring import score
from micronet_cli.scoring.charges import ELEMENTWISE, NON_LINEARITY, NORM, POOLING
from micronet_cli.scoring.prices import PRICES, Price
from micronet_cli.trace.kinds import MOVES
from micronet_cli.trace.records import Op

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


CLAMPS = {"from below": ({"min": 0}, 1), "from above": ({"max": 6}, 1), "both": ({"min": 0, "max": 6}, 2)}


@pytest.mark.parametrize(("bounds", "each"), CLAMPS.values(), ids=CLAMPS.keys())
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


class Count(NamedTuple):
    """Sizes of an operation, and what it costs by hand."""

    kind: str
    elements: int
    taken: int
    rows: int
    parameters: int
    multiplications: int
    additions: int


COUNTS = {
    "layer norm with weight and bias": Count("native_layer_norm", 16, 16, 2, 2, 2 * 16 + 3 * 2 + 16, 3 * 16 - 2 + 16),
    "layer norm without": Count("native_layer_norm", 16, 16, 2, 0, 2 * 16 + 3 * 2, 3 * 16 - 2),
    "rms norm has no bias": Count("_fused_rms_norm", 16, 16, 2, 1, 2 * 16 + 2 * 2 + 16, 16),
    "batch norm": Count("batch_norm", 16, 16, 0, 4, 16, 16),
    "mean of rows of 8": Count("mean", 2, 16, 2, 0, 2, 14),
    "mean of one number": Count("mean", 1, 1, 1, 0, 1, 0),
    "sum of rows of 8": Count("sum", 2, 16, 2, 0, 0, 14),
    "variance": Count("var", 2, 16, 2, 0, 16 + 2 * 2, 3 * 16 - 2 * 2),
    "deviation has a root more": Count("std", 2, 16, 2, 0, 16 + 3 * 2, 3 * 16 - 2 * 2),
    "euclidean norm": Count("linalg_vector_norm", 2, 16, 2, 0, 16 + 2, 16 - 2),
    "softmax": Count("_softmax", 8, 8, 2, 0, 16, 14),
    "log softmax": Count("_log_softmax", 8, 8, 2, 0, 8 + 2, 24 - 2),
    "overlapping patches are added": Count("col2im", 4, 9, 0, 0, 0, 5),
    "gelu by tanh": Count("gelu_tanh", 3, 3, 0, 0, 21, 6),
    "bilinear interpolation": Count("upsample_bilinear2d", 4, 1, 0, 0, 16, 12),
    "a sum of two tensors": Count("add", 8, 16, 0, 0, 0, 8),
    "a comparison": Count("lt", 8, 16, 0, 0, 0, 8),
    "a permutation of channels": Count("permute_channels", 8, 8, 0, 0, 8, 0),
    "a view": Count("view", 8, 8, 0, 0, 0, 0),
    "rounding": Count("quantize", 8, 8, 0, 0, 0, 0),
    "nothing to norm": Count("native_layer_norm", 0, 0, 0, 2, 0, 0),
}


@pytest.mark.parametrize("case", COUNTS.values(), ids=COUNTS)
def test_count_by_hand(case):
    parameters = tuple(range(case.parameters))
    op = Op(case.kind, "", (0,), (1,), parameters, elements=case.elements, taken=case.taken, rows=case.rows)
    assert PRICES[case.kind].count(op) == (case.multiplications, case.additions)


@pytest.mark.parametrize("kind", sorted(PRICES))
def test_every_price_names_its_source_and_a_heading(kind):
    price = PRICES[kind]
    assert price.source.startswith(("[T]", "[C]", "[R]", "composition"))
    assert price.part in (NON_LINEARITY, NORM, POOLING, ELEMENTWISE)


def test_every_move_is_free():
    op = Op("view", "", (0,), (1,), elements=10, taken=10, rows=10)
    assert {PRICES[kind].count(op) for kind in MOVES} == {(0, 0)}


def test_price_sums_its_coefficients():
    op = Op("own", "", (0,), (1,), (0,), elements=100, taken=10, rows=1)
    price = Price(NORM, "composition", elements=(1, 2), taken=(3, 4), rows=(5, -6))
    assert price.count(op) == (135, 234)
    # One parameter is a weight without a bias.
    affine = Price(NORM, "composition", elements=(1, 2), affine=True)
    assert affine.count(op) == (200, 200)
