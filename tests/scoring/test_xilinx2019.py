"""The Xilinx entry's own arithmetic: by hand where it leaves the rules, and its published score from its recipe."""

import numpy as np
import pytest

from micronet_cli.scoring import rule_set, score_with
from micronet_cli.scoring.charges import (
    ACCUMULATE,
    BIAS_ADD,
    BIASES,
    ELEMENTWISE,
    MULTIPLY,
    NON_LINEARITY,
    POOLING,
    SCALES,
    WEIGHTS,
)
from micronet_cli.scoring.rules import Base
from micronet_cli.scoring.tables import by_part
from micronet_cli.scoring.xilinx2019 import Xilinx2019
from micronet_cli.trace.layouts import Layout, Read
from micronet_cli.trace.records import Dot, ExecutedQuantizer, Op, Stored, TracedNetwork, Value
from tests.scoring.entries import entry

BASE = Base(1, 1, 1)
CODES = frozenset(["x"])


def parts(after):
    """A 3x3 convolution of 2 channels to 4 at 5 positions, 4 bits by 4, one weight in two zero; then ``after``."""
    read = Read(0, Layout((1, 2, 5, 1), (10, 5, 1, 1)))
    dot = Dot(0, None, terms=18, nonzeros=np.full(4, 9), repeats=5, outputs=20, spatial=5)
    product = Op("convolution", "conv", (0,), (1,), elements=20, dot=dot, reads=(read,))
    quantized = Op("quantize", "conv", (1,), (2,), elements=20)
    network = TracedNetwork(
        ops=(product, quantized, *after) if after is not None else (product,),
        values=(Value(10, 0, quantizers=CODES), Value(20, 1), Value(20, 2, quantizers=CODES), Value(20, 3)),
        stored=(Stored("conv.weight", "conv", 72, 36.0, quantizer="w"),),
        quantizers={
            "w": ExecutedQuantizer("w", "conv", bits=4, stored_bits=64),
            "x": ExecutedQuantizer("x", "conv", bits=4, stored_bits=36),
        },
        input_shape=(2, 5, 1),
    )
    return by_part(Xilinx2019().charges(network), BASE)


# 15 x 14 x (9 x 4 output channels) = 7560 < 2^13.
WIDTH = 13


def test_zeros_are_stored_and_multiplied():
    counted = parts(())
    assert counted[WEIGHTS].storage_bits == 72 * 4
    assert (counted[MULTIPLY].multiplications, counted[MULTIPLY].math_ops) == (18 * 20, 18 * 20 * 4 / 32)


def test_accumulator_holds_the_largest_product_times_kernel_and_output_channels():
    added = parts(())[ACCUMULATE]
    assert (added.additions, added.math_ops * 32) == (18 * 20, 18 * 20 * WIDTH)


def test_thresholds_are_stored_and_compared_for_each_level():
    counted = parts(())
    assert counted[SCALES].storage_bits == 4 * WIDTH * 15
    assert counted[NON_LINEARITY].math_ops * 32 == 20 * WIDTH * 15
    assert BIASES not in counted
    assert BIAS_ADD not in counted


def test_last_product_has_a_bias_instead():
    counted = parts(None)
    assert counted[BIASES].storage_bits == 4 * WIDTH
    assert counted[BIAS_ADD].math_ops * 32 == 20 * WIDTH
    assert SCALES not in counted


def test_a_sum_is_requantised():
    read = Read(2, Layout((1, 4, 5, 1), (20, 5, 1, 1)))
    counted = parts((Op("add", "block", (2, 2), (3,), elements=20, reads=(read, read)),))
    assert counted[ELEMENTWISE].math_ops * 32 == 20 * 4
    # 15 + 15 takes 5 bits.
    assert counted[NON_LINEARITY].math_ops * 32 == 20 * WIDTH * 15 + 20 * 5 * 15
    assert counted[SCALES].storage_bits == 4 * WIDTH * 15 + 4 * 5 * 15


def test_a_mean_adds_all_of_its_values():
    # 15 x 5 takes 7 bits.
    counted = parts((Op("mean", "pool", (2,), (3,), elements=4, taken=20, rows=4),))
    assert counted[POOLING].math_ops * 32 == 20 * 7


@pytest.mark.slow
def test_recipe_has_the_published_score():
    """README.md: 0.5558137893676758."""
    own = score_with(entry("xilinx_proxylessnas"), rule_set("xilinx2019")).total
    assert own.score == pytest.approx(0.5558137893676758, rel=1e-6)
