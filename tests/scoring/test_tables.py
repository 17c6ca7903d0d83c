"""Sums of charges by hand: totals, rows, headings, waterfall."""

import pytest

from micronet_cli.scoring.charges import ACCUMULATE, MASKS, MULTIPLY, NORM, WEIGHTS, Charge
from micronet_cli.scoring.rules import Base
from micronet_cli.scoring.tables import Total, block_of, by_part, rows, waterfall
from micronet_cli.trace.records import Stored

BASE = Base(params=10, ops=100, top1=0)
CHARGES = [
    Charge("stem", WEIGHTS, storage_bits=64),
    Charge("blocks.0.a", WEIGHTS, storage_bits=96),
    Charge("blocks.0.b", MASKS, storage_bits=32),
    Charge("stem", MULTIPLY, multiplications=40, math_ops=20, bits="4x4"),
    Charge("blocks.0.a", MULTIPLY, multiplications=10, math_ops=10, bits="8x4"),
    Charge("blocks.0.b", MULTIPLY, multiplications=10, math_ops=10, bits="8x8"),
    Charge("blocks.0.b", ACCUMULATE, additions=10, math_ops=10),
]


def test_total_by_hand():
    total = Total.of(CHARGES, BASE)
    assert (total.storage_bits, total.storage_params) == (192, 6)
    assert (total.multiplications, total.additions, total.math_ops) == (60, 10, 50)
    assert (total.storage_score, total.math_score, total.score) == (0.6, 0.5, 1.1)


def test_total_of_nothing_is_zero():
    total = Total.of([], BASE)
    assert (total.storage_bits, total.math_ops, total.score) == (0, 0, 0)


def test_rows_by_layer_by_hand():
    found = rows(CHARGES, BASE, ["blocks.0.a", "stem"], "layer")
    # The order asked for first, then the order of the charges.
    assert [row.layer for row in found] == ["blocks.0.a", "stem", "blocks.0.b"]
    assert [row.storage_params for row in found] == [3, 2, 1]
    assert [row.math_ops for row in found] == [10, 20, 20]
    assert [row.score for row in found] == pytest.approx([0.4, 0.4, 0.3])
    assert [row.share for row in found] == pytest.approx([4 / 11, 4 / 11, 3 / 11])


def test_rows_by_block_join_layers_and_list_their_bits_once():
    again = Charge("blocks.0.c", MULTIPLY, math_ops=1, bits="8x4")
    stem, block = rows([*CHARGES, again], BASE, [], "block")
    assert (stem.layer, stem.bits) == ("stem", "4x4")
    assert (block.layer, block.bits) == ("blocks.0", "8x4 8x8")
    assert (block.storage_params, block.multiplications, block.additions, block.math_ops) == (4, 20, 10, 31)


def test_rows_show_other_bits_only_where_there_is_no_product():
    norm = Charge("norm", NORM, math_ops=1, bits="32")
    late = Charge("fc", NORM, math_ops=1, bits="32")
    product = Charge("fc", MULTIPLY, math_ops=1, bits="4x8")
    assert [row.bits for row in rows([norm, late, product], BASE, [], "layer")] == ["32", "4x8"]


def test_rows_that_cost_nothing_are_left_out():
    assert rows([], BASE, ["stem"], "layer") == []
    assert rows([Charge("drop", NORM)], BASE, [], "layer") == []


def test_rows_give_the_sparsity_of_all_weights_of_a_row():
    weights = [Stored("blocks.0.a.weight", "blocks.0.a", 10, 4), Stored("blocks.0.b.weight", "blocks.0.b", 30, 26)]
    by_layer = {row.layer: row.sparsity for row in rows(CHARGES, BASE, [], "layer", weights)}
    assert by_layer["stem"] is None
    assert by_layer["blocks.0.a"] == pytest.approx(0.6)
    by_block = {row.layer: row.sparsity for row in rows(CHARGES, BASE, [], "block", weights)}
    assert by_block["blocks.0"] == pytest.approx(0.25)


def test_rows_per_anything_else_are_refused():
    with pytest.raises(ValueError, match="per=module: must be layer or block"):
        rows(CHARGES, BASE, [], "module")


BLOCKS = {
    "blocks.1.0.conv": "blocks.1.0",
    "blocks.12.norm1": "blocks.12",
    "stages.0.blocks.1.mlp.fc1": "stages.0.blocks.1",
    "stages.2.layers.0.x": "stages.2.layers.0",
    "layer1.0.conv1": "layer1.0",
    "features.3": "features.3",
    "classifier": "classifier",
    "head.fc": "head.fc",
    "": "",
}


@pytest.mark.parametrize(("layer", "block"), BLOCKS.items())
def test_block_of_is_the_numbered_part_of_the_name(layer, block):
    assert block_of(layer) == block


def test_by_part_keeps_the_order_of_appearance():
    parts = by_part(CHARGES, BASE)
    assert list(parts) == [WEIGHTS, MASKS, MULTIPLY, ACCUMULATE]
    assert parts[WEIGHTS].storage_bits == 160
    assert parts[MULTIPLY].math_ops == 40


def test_waterfall_steps_add_up_and_the_largest_comes_first():
    there = [Charge("x", WEIGHTS, storage_bits=320), Charge("x", NORM, math_ops=30)]
    other = Base(params=5, ops=100, top1=0)
    steps = waterfall(CHARGES, BASE, there, other)
    # Weights 0.5 -> 10 / 5; multiplies 0.4 -> 0; norms 0 -> 0.3; masks and accumulation 0.1 -> 0, in order.
    assert [step.part for step in steps] == [WEIGHTS, MULTIPLY, NORM, MASKS, ACCUMULATE]
    assert [step.effect for step in steps] == pytest.approx([1.5, -0.4, 0.3, -0.1, -0.1])
    difference = Total.of(there, other).score - Total.of(CHARGES, BASE).score
    assert sum(step.effect for step in steps) == pytest.approx(difference)


def test_waterfall_to_the_same_charges_has_no_effect():
    assert {step.effect for step in waterfall(CHARGES, BASE, CHARGES, BASE)} == {0}
