"""RIAIR's own arithmetic: by hand where it leaves the rules, and the published scores from the recipes."""

import numpy as np
import pytest

from micronet_cli.scoring import rule_set, score_with
from micronet_cli.scoring.charges import (
    ACCUMULATE,
    BIAS_ADD,
    BIASES,
    ELEMENTWISE,
    MASKS,
    NON_LINEARITY,
    NORM,
    POOLING,
    SCALES,
    WEIGHTS,
)
from micronet_cli.scoring.riair2019 import Riair2019
from micronet_cli.scoring.rules import Base
from micronet_cli.scoring.tables import by_part
from micronet_cli.trace.records import Dot, ExecutedQuantizer, Op, Stored, TracedNetwork, Value
from tests.scoring.entries import entry

BASE = Base(1, 1, 1)


def network(*kinds, bias=True):
    """An activation of 6 values, what ``kinds`` make of it, and 2 channels of 5 and 3 of 6 weights, all of 4 bits."""
    dot = Dot(0, 1 if bias else None, terms=6, nonzeros=np.array([5, 3]), repeats=1, outputs=2)
    ops, values = [], [Value(6, 0)]
    for kind in kinds:
        number = len(ops)
        ops.append(Op(kind, "act", (number,), (number + 1,), elements=6, taken=6, rows=1))
        values.append(Value(6, number + 1))
    values[-1] = Value(6, len(values), quantizers=frozenset(["x"]))
    ops.append(Op("mm", "fc", (len(ops),), (len(ops) + 1,), elements=2, dot=dot))
    return TracedNetwork(
        ops=tuple(ops),
        values=(*values, Value(2, 99)),
        stored=(Stored("fc.weight", "fc", 12, 8.0, quantizer="w"), Stored("fc.bias", "fc", 2, 2)),
        quantizers={
            "w": ExecutedQuantizer("w", "fc", bits=4, stored_bits=64),
            "x": ExecutedQuantizer("x", "fc", bits=4, stored_bits=36),
        },
        input_shape=(1, 1, 6),
    )


def parts(rules, *kinds, bias=True):
    return by_part(rules.charges(network(*kinds, bias=bias)), BASE)


def test_storage_is_masks_scales_and_biases_at_16_bits():
    stored = parts(Riair2019(), "quantize")
    assert {part: stored[part].storage_bits for part in (WEIGHTS, MASKS, BIASES, SCALES)} == {
        WEIGHTS: 8 * 4,
        MASKS: 12,
        BIASES: 2 * 16,
        SCALES: (2 + 1) * 16,
    }


@pytest.mark.parametrize(
    ("kinds", "product_bits"),
    [(("relu", "quantize"), 8), (("silu", "quantize"), 7), (("quantize",), 8)],
    ids=["after ReLU", "signed", "the image"],
)
def test_tree_of_a_signed_input_is_a_bit_narrower(kinds, product_bits):
    # Five leaves: 2 additions at b bits, 1 at b + 1, 1 at b + 2; three: 1 at b, 1 at b + 1.
    bits = (2 + 1) * product_bits + 2 * (product_bits + 1) + (product_bits + 2)
    added = parts(Riair2019(), *kinds)[ACCUMULATE]
    assert (added.additions, added.math_ops * 32) == (8 - 2, bits)


@pytest.mark.parametrize(
    ("accumulator", "bits"),
    [
        pytest.param("integer", 6 * 11, id="integer"),
        pytest.param("int16", 6 * 11, id="int16"),
        pytest.param("fp16", 8 * 5 / 6 * 16, id="fp16"),
    ],
)
def test_accumulators_take_the_largest_channels_width_or_density_times_k_minus_1(accumulator, bits):
    added = parts(Riair2019(accumulator=accumulator), "relu", "quantize")[ACCUMULATE]
    assert added.math_ops * 32 == pytest.approx(bits)


def test_every_output_is_scaled_and_shifted_at_16_bits():
    counted = parts(Riair2019(), "quantize", bias=False)
    assert (counted[NORM].multiplications, counted[NORM].math_ops) == (2, 1)
    assert (counted[BIAS_ADD].additions, counted[BIAS_ADD].math_ops) == (2, 1)


@pytest.mark.parametrize(
    ("bits", "ops"), [pytest.param(None, 6 * 4 / 2, id="as entered"), pytest.param(32, 6 * 4, id="ruling")]
)
def test_ruling_counts_swish_and_means_at_32_bits(bits, ops):
    rules = Riair2019(nonlinearity_bits=bits)
    assert parts(rules, "silu", "quantize")[NON_LINEARITY].math_ops == ops
    assert parts(rules, "mean", "quantize")[POOLING].math_ops == ops / 4
    assert parts(rules, "relu", "quantize")[NON_LINEARITY].math_ops == 6 / 2
    assert parts(rules, "mul", "quantize")[ELEMENTWISE].math_ops == 6 / 2


# Score.md of branch master: operations.
IMAGENET = {"adder_tree": 0.075749, "integer": 0.092668, "int16": 0.087681, "fp16": 0.088973, "fp32": 0.139955}


@pytest.mark.slow
@pytest.mark.parametrize(("accumulator", "operations"), IMAGENET.items(), ids=IMAGENET.keys())
def test_imagenet_recipe_has_the_published_operations(accumulator, operations):
    own = score_with(entry("riair_mixnet_s"), Riair2019(accumulator=accumulator)).total
    assert own.math_score == pytest.approx(operations, rel=0.015)


@pytest.mark.slow
def test_imagenet_recipe_stores_the_zeros_that_quantisation_added_beside_the_published():
    """Random weights stand for the checkpoint's: 2.3 % more is stored than of those."""
    own = score_with(entry("riair_mixnet_s"), rule_set("riair2019")).total
    assert own.storage_score == pytest.approx(0.049394, rel=0.025)
    assert own.storage_score > 0.049394
