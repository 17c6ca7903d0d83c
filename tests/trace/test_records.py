"""Plain records: bits are looked up, and operations are counted from non-zeros."""

import numpy as np
import pytest

from micronet_cli.trace.records import Dot, Value
from tests.trace.small_network import network


def test_bits_are_the_most_of_the_quantisers_and_floats_without_one():
    assert network().value_bits == (8, 16, 32)
    assert network().stored_bits == (4, 16, 32, 32)


def test_codes_of_no_quantiser_count_as_floats():
    assert network(values=(Value(1, 0, 16, frozenset()),)).value_bits == (16,)


def test_weights_and_used_tensors_are_those_that_operations_read():
    assert network().weights == (0,)
    assert network().used == (0, 1, 2)


@pytest.mark.parametrize(
    ("nonzeros", "additions"),
    [
        pytest.param([4, 0], [9, 0], id="an empty channel adds nothing"),
        pytest.param([1, 1], [0, 0], id="one term adds nothing"),
        pytest.param([0.5, 2.5], [0, 4.5], id="fractional counts"),
    ],
)
def test_channel_additions_are_one_less_than_the_terms(nonzeros, additions):
    dot = Dot(0, None, 4, np.array(nonzeros), repeats=3, outputs=6)
    assert dot.channel_additions.tolist() == additions
    assert dot.multiplications == sum(nonzeros) * 3
