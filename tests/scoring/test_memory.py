"""Peak activation memory: what is alive together, by hand."""

from typing import NamedTuple

import pytest
from torch import nn

from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.scoring.memory import peak_activation_bytes
from micronet_cli.trace.records import Op, TracedNetwork, Value
from micronet_cli.trace.trace import Trace


def peak(function, shape, **children):
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    module.forward = lambda x: function(module, x)
    return peak_activation_bytes(Trace(module, shape).read())


def test_transient_activations_of_a_chain_are_the_largest_input_and_output():
    convs = {"a": nn.Conv2d(1, 8, 1), "b": nn.Conv2d(8, 2, 1)}
    assert peak(lambda m, x: m.b(m.a(x)), (1, 4, 4), **convs) == (8 + 2) * 16 * 4
    assert peak(lambda m, x: m.a(x), (1, 4, 4), **convs) == (1 + 8) * 16 * 4


def test_transient_activations_keep_a_residual_alive_and_ignore_views():
    convs = {"a": nn.Conv2d(4, 8, 1), "b": nn.Conv2d(8, 4, 1)}
    assert peak(lambda m, x: x + m.b(m.a(x)), (4, 4, 4), **convs) == (4 + 8 + 4) * 16 * 4
    assert peak(lambda m, x: m.b(m.a(x).relu_().view(1, 8, 4, 4)), (4, 4, 4), **convs) == (4 + 8) * 16 * 4


def test_transient_activations_keep_all_that_the_network_returns():
    convs = {"a": nn.Conv2d(4, 8, 1), "b": nn.Conv2d(8, 4, 1)}
    assert peak(lambda m, x: (m.a(x), m.b(m.a(x))), (4, 4, 4), **convs) == (8 + 8 + 4) * 16 * 4


def test_transient_activations_count_at_their_own_bits():
    convs = {"q": ActivationFakeQuantize(4), "p": nn.MaxPool2d(1, 1)}
    # The input (32 bits) and its codes (4 bits), then two tensors of codes.
    assert peak(lambda m, x: m.p(m.p(m.q(x))), (1, 4, 4), **convs) == 16 * 4 + 16 * 4 / 8


def network(ops, elements, bits=32, buffers=None, outputs=()):
    """Operations as (inputs, outputs) over values of these many elements."""
    lives_in = buffers or range(len(elements))
    return TracedNetwork(
        ops=tuple(Op("relu", "", inputs, made) for inputs, made in ops),
        values=tuple(Value(count, buffer, bits) for count, buffer in zip(elements, lives_in, strict=True)),
        stored=(),
        quantizers={},
        input_shape=(1, 1, 1),
        outputs=outputs,
    )


class Peak(NamedTuple):
    """Operations as (inputs, outputs), elements of each value, and the most elements at a time."""

    ops: list
    elements: list
    peak_elements: int


PEAKS = {
    "nothing executed": Peak([], [8], peak_elements=0),
    "one operation": Peak([((0,), (1,))], [8, 4], peak_elements=12),
    "the last output is not read": Peak([((0,), (1,)), ((1,), (2,))], [1, 2, 4], peak_elements=6),
    "a skip lives until it is read": Peak([((0,), (1,)), ((1,), (2,)), ((2, 0), (3,))], [8, 4, 2, 1], peak_elements=14),
    "an input that nobody reads is not held": Peak([((), (1,)), ((1,), (2,))], [100, 2, 4], peak_elements=6),
}


@pytest.mark.parametrize("case", PEAKS.values(), ids=PEAKS)
def test_peak_by_hand(case):
    outputs = (len(case.elements) - 1,)
    traced = network(case.ops, case.elements, outputs=outputs)
    assert peak_activation_bytes(traced) == 4 * case.peak_elements


def test_peak_leaves_out_an_output_that_nobody_reads():
    assert peak_activation_bytes(network([((0,), (1,))], [8, 4])) == 8 * 4


def test_peak_counts_a_shared_buffer_once_at_its_largest():
    # An in-place operation and a view: all three values live in the memory of the first.
    ops = [((0,), (1,)), ((1,), (2,))]
    assert peak_activation_bytes(network(ops, [8, 8, 4], buffers=[0, 0, 0], outputs=(2,))) == 8 * 4


def test_peak_scales_with_the_bits():
    ops = [((0,), (1,))]
    assert peak_activation_bytes(network(ops, [8, 4], bits=16, outputs=(1,))) == 12 * 2
