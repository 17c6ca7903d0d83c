"""What-ifs change only what they name."""

import numpy as np

from micronet_cli.trace.records import Dot, Op, Stored
from micronet_cli.trace.what_if import with_sparsity, without_compression
from tests.trace.small_network import network


def test_other_sparsity_changes_weights_only():
    changed = with_sparsity(network(), 0.25)
    assert [stored.nonzeros for stored in changed.stored] == [6, 2, 1, 9]
    assert changed.stored[0].kept_blocks is None
    assert changed.ops[0].dot.nonzeros.tolist() == [3, 3]
    assert changed.stored_bits == network().stored_bits


def test_without_compression_there_is_no_quantiser_and_no_zero():
    dense = without_compression(network())
    assert dense.value_bits == (32, 32, 32)
    assert dense.stored_bits == (32, 32, 32, 32)
    assert dense.stored[0] == Stored("conv.weight", "conv", 8, 8)
    assert dense.ops[0].dot.nonzeros.tolist() == [4, 4]
    assert dense.quantizers == {}


def test_a_permutation_keeps_its_zeros_without_compression():
    matrix = Stored("permutation", "", 16, 4)
    permutation = Op("permute_channels", "", (0,), (1,), parameters=(0,))
    dense = without_compression(network(ops=(permutation,), stored=(matrix,)))
    assert dense.stored[0].nonzeros == 4


def test_a_product_of_activations_stays_as_it_is():
    dot = Dot(None, None, 4, np.array([4]), repeats=3, outputs=3)
    ops = (Op("bmm", "", (0, 1), (2,), dot=dot),)
    changed = with_sparsity(network(ops=ops), 0.5)
    assert changed.ops[0] is ops[0]
