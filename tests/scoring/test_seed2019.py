"""The 2019 entry's own arithmetic, by hand where it differs from the rules."""

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from micronet_cli.scoring import rule_set, score
from micronet_cli.scoring.charges import (
    ACCUMULATE,
    BIASES,
    ELEMENTWISE,
    MASKS,
    MULTIPLY,
    NON_LINEARITY,
    NORM,
    POOLING,
    WEIGHTS,
)
from micronet_cli.scoring.seed2019 import Seed2019
from micronet_cli.trace.records import Dot, ExecutedQuantizer, Op, Stored, TracedNetwork, Value


def test_seed2019_charges_a_float_convolution_that_feeds_another():
    model = nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.Conv2d(4, 2, 1, bias=False))
    figures = score(model, (2, 3, 3), "seed2019")
    # 8 weights each; (8 - 1) + 1 additions a position; 3 operations an element of each output.
    assert figures["math_ops"] == 2 * 8 * 9 + 2 * 8 * 9 + 3 * 9 * (4 + 2)


def network(*ops, values, stored=(), quantizers=None):
    """Operations over values of these many elements."""
    held = tuple(Value(elements, index) for index, elements in enumerate(values))
    return TracedNetwork(ops, held, stored, quantizers or {}, (1, 1, 1))


def convolution(inputs=(0,), outputs=(1,), weight=0, bias=None, **options):
    """2 channels of 9 weights, 3 of them zero each, on 4 positions."""
    options = {"groups": 1, "elements": 8, **options}
    elements = options.pop("elements")
    dot = Dot(weight, bias, terms=9, nonzeros=np.array([6, 6]), repeats=4, outputs=8, spatial=4, **options)
    return Op("convolution", "conv", inputs, outputs, elements=elements, dot=dot)


WEIGHT = Stored("conv.weight", "conv", 18, 12)


def by_part(charges):
    return {charge.part: charge for charge in charges}


def test_storage_of_floats_takes_16_bits_and_a_mask():
    bias = Stored("conv.bias", "conv", 2, 2)
    found = Seed2019().storage(network(convolution(bias=1), values=[16, 8], stored=(WEIGHT, bias)))
    assert [(charge.part, charge.storage_bits) for charge in found] == [(WEIGHTS, 12 * 16), (MASKS, 18), (BIASES, 32)]


def test_storage_of_a_folded_bias_has_its_weights_bits_and_sparsity():
    weight = replace(WEIGHT, quantizer="w")
    bias = Stored("bn.bias", "conv", 3, 3, folded=True)
    quantizers = {"w": ExecutedQuantizer("w", "conv", bits=4, stored_bits=64)}
    found = Seed2019().storage(
        network(convolution(bias=1), values=[16, 8], stored=(weight, bias), quantizers=quantizers)
    )
    # Two thirds of the weight are kept: 12 of 18, 2 of 3. Scales cost nothing.
    bits = [(charge.part, charge.storage_bits) for charge in found]
    assert bits == [(WEIGHTS, 48), (MASKS, 18), (BIASES, 8), (MASKS, 3)]


def test_storage_of_a_full_weight_has_no_mask():
    found = Seed2019().storage(network(convolution(), values=[16, 8], stored=(replace(WEIGHT, nonzeros=18),)))
    assert [charge.part for charge in found] == [WEIGHTS]


def test_convolution_is_divided_by_its_groups_once_more():
    charges = by_part(Seed2019().math(network(convolution(groups=2), values=[16, 8], stored=(WEIGHT,))))
    # 12 weights at 4 positions over 2 groups; (12 - 1) * 4 / 2 + 4 additions.
    assert charges[MULTIPLY].multiplications == 24
    assert charges[ACCUMULATE].additions == 26


def test_linear_layer_counts_its_bias_twice_and_the_dropout_before_it():
    dot = Dot(0, 1, terms=6, nonzeros=np.array([6, 6]), repeats=1, outputs=2)
    weight, bias = Stored("fc.weight", "fc", 12, 12), Stored("fc.bias", "fc", 2, 2)
    found = by_part(
        Seed2019().math(
            network(Op("addmm", "fc", (0,), (1,), elements=2, dot=dot), values=[6, 2], stored=(weight, bias))
        )
    )
    assert found[MULTIPLY].multiplications == 12
    assert found[ACCUMULATE].additions == 12 + 2 * 2
    assert found[NON_LINEARITY].multiplications == 3 * 6


def test_non_linearity_is_charged_once_where_one_follows_the_convolution():
    ops = convolution(), Op("relu", "act", (1,), (2,), elements=8)
    charges = Seed2019().math(network(*ops, values=[16, 8, 8], stored=(WEIGHT,)))
    assert [charge.layer for charge in charges if charge.part == NON_LINEARITY] == ["act"]


def test_gate_is_charged_on_the_feature_map_that_it_scales():
    gate = Op("sigmoid", "gate", (0,), (1,), elements=2)
    scaled = Op("mul", "", (1, 2), (3,), elements=50)
    found = by_part(Seed2019().math(network(gate, scaled, values=[2, 2, 50, 50])))
    assert found[NON_LINEARITY].multiplications == 3 * 50
    assert ELEMENTWISE not in found
    alone = by_part(Seed2019().math(network(gate, values=[2, 2])))
    assert alone[NON_LINEARITY].multiplications == 3 * 2


def after_four_bits(*ops, **options):
    """Charges after a convolution of 4-bit weights."""
    weight = replace(WEIGHT, quantizer="w")
    quantizers = {"w": ExecutedQuantizer("w", "conv", bits=4, stored_bits=64)}
    traced = network(convolution(), *ops, values=[16, 8, 8], stored=(weight,), quantizers=quantizers)
    return by_part(Seed2019(**options).math(traced))


def test_pools_and_non_linearities_have_the_bits_of_the_weight_before():
    pool = Op("mean", "pool", (1,), (2,), elements=2, taken=8, rows=2)
    found = after_four_bits(pool)
    assert (found[POOLING].additions, found[POOLING].math_ops, found[POOLING].bits) == (8, 1, "4")
    relu = Op("relu", "act", (1,), (2,), elements=8)
    assert after_four_bits(relu)[NON_LINEARITY].math_ops == 3 * 8 * 4 / 32
    assert after_four_bits(relu, nonlinearity_bits=32)[NON_LINEARITY].math_ops == 3 * 8


def test_norms_count_as_official_at_32_bits():
    norm = Op("batch_norm", "bn", (1,), (2,), elements=8)
    found = after_four_bits(norm)[NORM]
    assert (found.multiplications, found.additions, found.math_ops, found.bits) == (8, 8, 16, "32")


REFUSED = {
    "freebie": ({"freebie": True}, "freebie=True: seed2019 knows only False"),
    "accumulator": ({"accumulator": "adder_tree"}, "accumulator=adder_tree: seed2019 knows only fp32"),
    "block masks": ({"block": [4, 4]}, r"block=\[4, 4\]: seed2019 knows only None"),
    "early exits": ({"paths": {"head": 0.5}}, "paths={'head': 0.5}: seed2019 knows none"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_options_that_this_arithmetic_does_not_know_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        rule_set("seed2019", **options)
