"""Plain records: bits are looked up, and what-ifs change only what they name."""

import numpy as np
import pytest

from micronet_cli.trace.records import Dot, ExecutedQuantizer, Op, Stored, TracedNetwork, Value


def network(**changes):
    """A quantised input times a 4-bit weight with a bias, then a scale."""
    dot = Dot(weight=0, bias=1, terms=4, nonzeros=np.array([4, 0]), repeats=3, outputs=6)
    parts = {
        "ops": (
            Op("convolution", "conv", (0,), (1,), dot=dot),
            Op("mul", "", (1,), (2,), parameters=(2,)),
        ),
        "values": (
            Value(12, 0, quantizers=frozenset(["a", "b"])),
            Value(6, 1, float_bits=16),
            Value(6, 2, quantizers=frozenset(["gone"])),
        ),
        "stored": (
            Stored("conv.weight", "conv", 8, 4, quantizer="w", kept_blocks=(4, 1, 2), binary=True),
            Stored("conv.bias", "conv", 2, 2, float_bits=16),
            Stored("scale", "", 1, 1),
            Stored("unused", "", 9, 9),
        ),
        "quantizers": {
            "a": ExecutedQuantizer("a", "conv", 3, 64),
            "b": ExecutedQuantizer("b", "conv", 8, 64),
            "w": ExecutedQuantizer("w", "conv", 4, 32),
        },
        "input_shape": (3, 2, 2),
    }
    return TracedNetwork(**{**parts, **changes})


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


def test_a_what_if_of_sparsity_changes_weights_only():
    changed = network().with_sparsity(0.25)
    assert [stored.nonzeros for stored in changed.stored] == [6, 2, 1, 9]
    assert changed.stored[0].kept_blocks is None
    assert changed.ops[0].dot.nonzeros.tolist() == [3, 3]
    assert changed.stored_bits == network().stored_bits


def test_dense_has_no_quantiser_and_no_zero():
    dense = network().dense()
    assert dense.value_bits == (32, 32, 32)
    assert dense.stored_bits == (32, 32, 32, 32)
    assert dense.stored[0] == Stored("conv.weight", "conv", 8, 8)
    assert dense.ops[0].dot.nonzeros.tolist() == [4, 4]
    assert dense.quantizers == {}


def test_a_permutation_keeps_its_zeros_in_a_dense_network():
    matrix = Stored("permutation", "", 16, 4)
    dense = network(ops=(Op("permute_channels", "", (0,), (1,), parameters=(0,)),), stored=(matrix,)).dense()
    assert dense.stored[0].nonzeros == 4


def test_a_product_of_activations_stays_as_it_is():
    dot = Dot(None, None, 4, np.array([4]), repeats=3, outputs=3)
    ops = (Op("bmm", "", (0, 1), (2,), dot=dot),)
    changed = network(ops=ops).with_sparsity(0.5)
    assert changed.ops[0] is ops[0]
