"""Published counts of known networks: the organisers' counter (dense) and the 2019 entry (its recipe)."""

import copy

import pytest
import torch
from torch import nn

from micronet_cli.functional.counting import adder_tree_bits, uniform_width
from micronet_cli.layers.effective_weight import attach_mask, effective_weight
from micronet_cli.layers.fake_quantize import attach_input_fake_quantize
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.scoring import rule_set, score, score_with
from micronet_cli.scoring.charges import BIASES, MASKS, SCALES, WEIGHTS
from micronet_cli.trace.trace import Trace
from tests.scoring import recipe

B0 = {"storage_params": 5_267_540, "multiplications": 406_623_188, "additions": 394_550_748}


@pytest.fixture(scope="module")
def efficientnet_b0():
    return recipe.network("tf_efficientnet_b0")


@pytest.fixture(scope="module")
def compressed():
    return Trace(recipe.recipe(), (3, 224, 224))


def seed2019(trace, **options):
    return score_with(trace, rule_set("seed2019", **options)).metrics()


def check(figures, **wanted):
    assert {name: figures[name] for name in wanted} == wanted


def test_dense_efficientnet_b0(efficientnet_b0):
    figures = score(efficientnet_b0)
    check(figures, **B0, math_ops=801_173_936, score_profile="official", weight_sparsity=0)
    assert round(figures["micronet_score"], 6) == 1.448176
    assert figures["dense_score"] == figures["micronet_score"]


def test_dense_efficientnet_b0_with_freebie(efficientnet_b0):
    figures = score(efficientnet_b0, freebie=True)
    check(figures, **{**B0, "storage_params": 2_633_770}, math_ops=597_862_342)
    assert round(figures["micronet_score"], 6) == 0.892699


def test_half_sparse_what_if(efficientnet_b0):
    figures = score(efficientnet_b0, freebie=True, weight_sparsity=0.5)
    check(figures, storage_params=1_488_353, multiplications=213_715_812, additions=201_643_372, math_ops=308_501_278)
    assert figures["micronet_score"] == pytest.approx(0.479379, abs=1e-6)
    assert figures["weight_sparsity"] == 0.5


def test_half_sparse_for_real_agrees_where_no_channel_is_empty(efficientnet_b0):
    model = copy.deepcopy(efficientnet_b0)
    for layer in compressible_layers(model).values():
        mask = attach_mask(layer).mask
        mask.view(-1)[::2] = False  # alternating: a channel keeps half of its weights, rounded up or down
    figures = score(model, freebie=True)
    check(figures, storage_params=1_488_353, multiplications=213_715_812, additions=201_643_372, math_ops=308_501_278)


def test_dense_mobilenetv2_140_charges_two_multiplications_a_clamp():
    figures = score(recipe.network("mobilenetv2_140"))
    check(figures, storage_params=6_084_808, multiplications=590_952_544 + 8_754_928, additions=582_584_464)


def test_recipe_keeps_2993353_of_7716976_weights():
    layers = compressible_layers(recipe.recipe()).values()
    masks = [effective_weight(layer).mask for layer in layers]
    assert len(masks) == 116
    assert sum(m.numel() for m in masks) == 7_716_976
    assert sum(int(m.sum()) for m in masks) == 2_993_353


def test_recipe_by_the_entrys_own_arithmetic(compressed):
    figures = seed2019(compressed)
    assert round(figures["micronet_score"], 4) == 0.3492
    assert abs(figures["math_ops"] - 304_833_264.5) < 0.1
    assert abs(figures["math_ops"] - 304_833_216) < 200  # as printed, summed in float32
    assert abs(figures["storage_params"] - 611_807) < 1
    assert round(figures["storage_bytes"] / 1e6, 6) == 2.447228


def test_recipe_with_the_organisers_correction(compressed):
    figures = seed2019(compressed, nonlinearity_bits=32)
    assert round(figures["micronet_score"], 4) == 0.3772
    assert abs(figures["math_ops"] - 337_552_104.5) < 0.1


def test_dense_network_by_the_entrys_own_arithmetic(compressed):
    figures = seed2019(compressed)
    assert figures["dense_storage_bytes"] == 15_526_320
    assert round(figures["dense_math_ops"], 2) == 1_079_323_713.16


def empty_channels(trace):
    """Additions that a count from layer totals misses: one for every output of a channel without weights."""
    dots = [op.dot for op in trace.read().ops if op.dot]
    return sum(int((d.nonzeros == 0).sum()) * d.repeats for d in dots)


def test_recipe_by_the_official_rules(compressed):
    report = score_with(compressed, rule_set("official"))
    total, parts = report.total, report.parts()
    assert total.math_ops == pytest.approx(374_151_144.5, rel=1e-3)
    assert total.math_ops - empty_channels(compressed) == 374_151_144.5
    without_scales = sum(parts[p].storage_params for p in (WEIGHTS, MASKS, BIASES))
    assert without_scales == pytest.approx(648_038, rel=1e-3)
    # 1000 zero points of the classifier take 3 bits here, 4 in the published sum.
    assert total.storage_params == pytest.approx(700_187, rel=1e-3)
    assert parts[SCALES].storage_params == pytest.approx(700_187 - 648_038 - 1000 / 32)
    assert round(total.score, 3) == 0.421
    assert round(total.score - parts[SCALES].storage_score, 3) == 0.414


def test_recipe_with_float_activations_pays_every_multiply_in_full():
    model = copy.deepcopy(recipe.recipe())
    for layer in compressible_layers(model).values():
        attach_input_fake_quantize(layer, None)
    trace = Trace(model, (3, 224, 224))
    figures = score_with(trace, rule_set("official")).metrics()
    assert figures["math_ops"] - empty_channels(trace) == 620_537_848
    assert figures["math_ops"] == figures["multiplications"] + figures["additions"]
    assert figures["activation_bits_mean"] == 32


def uniform_ops(trace, addition_bits):
    """Operations where each channel of a quantised convolution has its layer's mean non-zeros.

    ``addition_bits(n)`` is the sum of the widths of one dot product's additions.
    """
    network = trace.read()
    total = score_with(trace, rule_set("official")).total.math_ops - empty_channels(trace)
    for op in network.ops:
        if op.dot and op.kind == "convolution" and network.value_bits[op.inputs[0]] < 32:
            n = float(op.dot.nonzeros.mean())
            total += op.dot.outputs * (addition_bits(n) - 32 * (n - 1)) / 32
    return total


def test_exact_accumulators_are_never_wider_than_uniform_ones(compressed):
    uniform = uniform_ops(compressed, lambda n: (n - 1) * uniform_width(4, 4, n))
    assert uniform == pytest.approx(225.95e6, rel=1e-3)
    exact = score_with(compressed, rule_set("official", accumulator="integer")).total.math_ops
    assert exact < uniform
    assert exact == pytest.approx(209.0e6, rel=1e-3)  # Gaussian weights


def test_adder_tree_brings_the_recipe_below_0_26(compressed):
    assert uniform_ops(compressed, lambda n: adder_tree_bits(round(n), 8)) == pytest.approx(177.7e6, rel=1e-3)
    total = score_with(compressed, rule_set("official", accumulator="adder_tree")).total
    assert total.math_ops == pytest.approx(177.7e6, rel=2e-3)  # with each channel's own non-zeros
    assert total.score <= 0.26


def test_weights_only_quantisation_scores_32_bit_multiplications():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4 * 16, 10))
    quantizer = recipe.quantizer()
    quantizer = type(quantizer)({"all": next(iter(quantizer.rules.values()))}, weight_bits=4, activation_bits=None)
    quantizer.attach(model)
    figures = score(model, (3, 8, 8))
    assert figures["math_ops"] == figures["multiplications"] + figures["additions"]


def test_removing_an_activation_quantiser_raises_the_score_by_that_layers_share():
    model = copy.deepcopy(recipe.recipe())
    before = score_with(model, rule_set("official"), (3, 224, 224))
    layer = model.get_submodule("blocks.3.1.conv_pw")
    kept = int(effective_weight(layer).mask.sum())
    attach_input_fake_quantize(layer, None)
    after = score_with(model, rule_set("official"), (3, 224, 224))
    positions = 14 * 14
    assert after.total.math_ops - before.total.math_ops == kept * positions * (32 - 4) / 32
    assert after.total.storage_bits - before.total.storage_bits == -64
    rows = [{row.layer: row for row in report.rows()} for report in (before, after)]
    changed = [name for name in rows[0] if rows[0][name].math_ops != rows[1][name].math_ops]
    assert changed == ["blocks.3.1.conv_pw"]
