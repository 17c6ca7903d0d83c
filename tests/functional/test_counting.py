"""Golden values of the counting functions, by hand."""

import itertools

import numpy as np
import pytest

from micronet_cli.functional.counting import (
    accumulator_width,
    adder_tree_bits,
    bitmask_bits,
    block_mask_bits,
    dense_bits,
    signed_width,
    uniform_width,
)


def test_sparse_storage_is_values_and_one_bit_an_element():
    assert bitmask_bits(nonzeros=3, elements=9, bits=4) == 3 * 4 + 9
    assert dense_bits(9, 4) == 36


def test_block_mask_of_512_by_128_in_4_by_4_blocks_is_4096_bits():
    blocks = (512 // 4) * (128 // 4)
    assert block_mask_bits(kept=0, blocks=blocks, block_elements=16, bits=8) == 4096
    assert block_mask_bits(kept=2, blocks=blocks, block_elements=16, bits=8) == 4096 + 2 * 16 * 8


WIDTHS = {
    "zero alone": (0, 0, 1),
    "-1 takes the sign alone": (-1, 0, 1),
    "1 takes a sign and a bit": (0, 1, 2),
    "all of two bits": (-2, 1, 2),
    "one below two bits": (-3, 1, 3),
    "all of a byte": (-128, 127, 8),
    "one above a byte": (-128, 128, 9),
    "one below a byte": (-129, 0, 9),
}


@pytest.mark.parametrize(("low", "high", "width"), WIDTHS.values(), ids=WIDTHS.keys())
def test_signed_width_is_the_smallest_that_holds_the_range(low, high, width):
    assert signed_width(low, high) == width
    assert -(2 ** (width - 1)) <= low
    assert high <= 2 ** (width - 1) - 1


def test_accumulator_width_bounds_every_partial_sum_and_is_tight():
    weights, inputs = np.array([3, -2, 5]), (-1, 6)
    width = int(accumulator_width(weights[weights > 0].sum(), weights[weights < 0].sum(), inputs))
    sums = {0}
    for order in itertools.permutations(weights):
        for x in itertools.product(range(inputs[0], inputs[1] + 1), repeat=3):
            sums |= set(np.cumsum(np.array(order) * x).tolist())
    assert int(signed_width(min(sums), max(sums))) == width


def test_accumulator_width_of_inputs_that_never_are_zero_still_holds_zero():
    assert accumulator_width(np.array([1]), np.array([0]), (3, 4)).tolist() == [4]  # 0 .. 4


def test_uniform_width_is_operand_bits_and_the_logarithm_of_terms():
    assert [uniform_width(4, 4, n) for n in (0, 1, 2, 3, 4, 5)] == [8, 8, 9, 10, 10, 11]


TREES = {
    "no leaves": (0, 0),
    "one leaf": (1, 0),
    "two": (2, 8),
    "an odd one is handed on": (3, 8 + 9),
    "two levels": (4, 2 * 8 + 9),
    "an odd level": (6, 3 * 8 + 9 + 10),
}


@pytest.mark.parametrize(("terms", "bits"), TREES.values(), ids=TREES.keys())
def test_adder_tree_widens_by_a_bit_a_level(terms, bits):
    assert adder_tree_bits(terms, first_bits=8) == bits


def test_adder_tree_never_gets_wider_than_the_widest_adder():
    assert adder_tree_bits(8, first_bits=31, widest=32) == 4 * 31 + 2 * 32 + 32


def test_adder_tree_makes_one_addition_less_than_terms():
    assert [adder_tree_bits(n, first_bits=1, widest=1) for n in range(1, 40)] == list(range(39))
