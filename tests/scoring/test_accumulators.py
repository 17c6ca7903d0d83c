"""What additions cost in every accumulator, by hand; products and their parts are in test_official."""

import numpy as np
import pytest

from micronet_cli.scoring.accumulators import ACCUMULATORS, tree_bits
from micronet_cli.trace.records import Dot
from tests.scoring.test_official import accumulation, product


def test_accumulator_in_float_takes_32_bits_an_addition():
    assert accumulation(product()) == (4 + 2, 6 * 32)


def test_integer_accumulator_without_codes_is_as_wide_as_operands_and_terms():
    # 4 + 4 + ceil(log2 of 4, the mean non-zeros) for all channels.
    assert accumulation(product(), accumulator="integer") == (6, 6 * 10)


def test_integer_accumulator_is_exact_where_codes_are_known():
    # Channel 0: weights +7 and -3 on inputs 0 .. 15 stay in -45 .. 105: 8 bits. Channel 1: +1 in 0 .. 15: 5 bits.
    extremes = np.array([[7, 1], [-3, 0]])
    network = product(extremes=extremes, codes=(0, 15))
    assert accumulation(network, accumulator="integer") == (6, 4 * 8 + 2 * 5)


def test_integer_accumulator_is_never_wider_than_a_float():
    extremes = np.array([[2.0**40, 2.0**40], [0, 0]])
    network = product(extremes=extremes, codes=(0, 15))
    assert accumulation(network, accumulator="integer") == (6, 6 * 32)


def test_adder_tree_sums_each_channels_levels():
    # Five leaves: 2 additions at 8, 1 at 9, 1 at 10 bits. Three: 1 at 8, 1 at 9.
    assert accumulation(product(), accumulator="adder_tree") == (6, 35 + 17)


@pytest.mark.parametrize("accumulator", ACCUMULATORS)
def test_accumulator_of_an_empty_channel_costs_nothing(accumulator):
    assert accumulation(product((0, 1)), accumulator=accumulator) == (0, 0)


@pytest.mark.parametrize("accumulator", ACCUMULATORS)
def test_accumulator_of_float_inputs_takes_32_bits(accumulator):
    assert accumulation(product(quantized=False), accumulator=accumulator) == (6, 6 * 32)


def test_accumulator_in_half_floats_takes_16_bits_an_addition():
    assert accumulation(product(), accumulator="fp16") == (6, 6 * 16)


def test_sixteen_bit_accumulator_is_as_exact_as_integers_up_to_16_bits():
    # Channel 0 needs 8 bits, as above; channel 1 needs 21, and is a float of 16.
    extremes = np.array([[7, 2.0**16], [-3, 0]])
    network = product(extremes=extremes, codes=(0, 15))
    assert accumulation(network, accumulator="integer") == (6, 4 * 8 + 2 * 21)
    assert accumulation(network, accumulator="int16") == (6, 4 * 8 + 2 * 16)


def test_tree_of_a_layer_is_that_of_its_channels_at_every_position():
    dot = Dot(0, None, terms=6, nonzeros=np.array([5, 1, 5]), repeats=4, outputs=12)
    assert tree_bits(dot, 8) == 4 * (35 + 0 + 35)
