"""The dense float network beside every score: full weights at 32 bits, counted once."""

from dataclasses import replace

import numpy as np
import pytest

from micronet_cli.scoring.dense import dense_charges
from micronet_cli.scoring.official import Official
from micronet_cli.scoring.tables import Total
from micronet_cli.trace.records import Dot, ExecutedQuantizer, Op, Stored, TracedNetwork, Value


def network():
    """A linear layer of 4 x 2 weights, 3 of them not zero, at 4 bits, on inputs of 8 bits."""
    dot = Dot(weight=0, bias=None, terms=4, nonzeros=np.array([1, 2]), repeats=1, outputs=2)
    weights = ExecutedQuantizer("w", "fc", bits=4, stored_bits=64)
    inputs = ExecutedQuantizer("x", "fc", bits=8, stored_bits=64)
    return TracedNetwork(
        ops=(Op("mm", "fc", (0,), (1,), elements=2, dot=dot),),
        values=(Value(4, 0, quantizers=frozenset(["x"])), Value(2, 1)),
        stored=(Stored("fc.weight", "fc", 8, 3, quantizer="w"),),
        quantizers={"w": weights, "x": inputs},
        input_shape=(1, 1, 4),
    )


OPTIONS = {
    "plain": {},
    "a what-if": {"weight_sparsity": 0.75},
    "freebie": {"freebie": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_dense_charges_are_float32_without_a_zero_whatever_the_options(options):
    rules = Official(**options)
    total = Total.of(dense_charges(network(), rules), rules.base((1, 1, 4)))
    assert total.storage_bits == 8 * 32
    assert (total.multiplications, total.additions) == (8, 6)
    assert total.math_ops == 14


def test_dense_charges_are_counted_once_for_the_same_network_and_rules(monkeypatch):
    counted = []
    original = Official.charges

    def charges(self, traced):
        counted.append(self)
        return original(self, traced)

    monkeypatch.setattr(Official, "charges", charges)
    traced, rules = network(), Official()
    first = dense_charges(traced, rules)
    assert dense_charges(traced, rules) is first
    assert len(counted) == 1
    dense_charges(traced, replace(rules, nonlinearity_bits=8))
    dense_charges(network(), rules)
    assert len(counted) == 3
