"""Shapes of products by hand: channels, terms and repeats of every kind of operand."""

from typing import NamedTuple

import pytest
import torch

from micronet_cli.trace.products import product_shape

PLAIN = ([1, 1], [0, 0], [1, 1])


def zeros(*shape):
    return torch.zeros(shape)


class Figures(NamedTuple):
    """What is compared of a shape."""

    terms: int
    channels: int
    repeats: int
    outputs: int
    keep: tuple
    channel_dim: int


def figures(shape):
    return Figures(shape.terms, shape.channels, shape.repeats, shape.outputs, shape.keep, shape.channel_dim)


class Case(NamedTuple):
    """A product of two tensors of these shapes, and which of them are activations."""

    kind: str
    left: tuple
    right: tuple
    activations: tuple
    out: tuple
    expected: Figures


MATRICES = {
    "weight right": Case("mm", (5, 3), (3, 4), (True, False), (5, 4), Figures(3, 4, 5, 20, (1,), 1)),
    "weight left": Case("mm", (5, 3), (3, 4), (False, True), (5, 4), Figures(3, 5, 4, 20, (0,), 0)),
    "no weight": Case("mm", (5, 3), (3, 4), (True, True), (5, 4), Figures(3, 1, 20, 20, (), 1)),
    "left of a vector": Case("mv", (5, 3), (3,), (False, True), (5,), Figures(3, 5, 1, 5, (0,), 0)),
    "a vector of weights": Case("mv", (5, 3), (3,), (True, False), (5,), Figures(3, 1, 5, 5, (), 0)),
    "batched": Case("bmm", (2, 5, 3), (2, 3, 4), (True, False), (2, 5, 4), Figures(3, 8, 5, 40, (0, 2), 2)),
    "empty": Case("mm", (5, 0), (0, 4), (True, True), (5, 4), Figures(0, 1, 20, 20, (), 1)),
}


@pytest.mark.parametrize("case", MATRICES.values(), ids=MATRICES)
def test_matrix_products(case):
    operands = (zeros(*case.left), zeros(*case.right))
    shape = product_shape(case.kind, operands, zeros(*case.out), case.activations)
    assert figures(shape) == case.expected


def test_the_addend_is_the_bias():
    bias, data, weight = zeros(4), zeros(5, 3), zeros(3, 4)
    shape = product_shape("addmm", (bias, data, weight), zeros(5, 4), (False, True, False))
    assert shape.bias is bias
    assert shape.data is data
    assert shape.weight is weight
    assert figures(shape) == Figures(3, 4, 5, 20, (1,), 1)


class Convolution(NamedTuple):
    """A weight with its groups, and the shape of its dot products."""

    weight: tuple
    groups: int
    terms: int
    channels: int
    repeats: int


CONVOLUTIONS = {
    "dense": Convolution((8, 4, 3, 3), groups=1, terms=36, channels=8, repeats=4),
    "grouped": Convolution((8, 2, 3, 3), groups=2, terms=18, channels=8, repeats=4),
    "depthwise": Convolution((4, 1, 3, 3), groups=4, terms=9, channels=4, repeats=4),
}


@pytest.mark.parametrize("case", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolutions(case):
    out = zeros(1, case.weight[0], 2, 2)
    args = (zeros(1, 4, 4, 4), zeros(*case.weight), None, *PLAIN, False, [0, 0], case.groups)
    shape = product_shape("convolution", args, out, (True, False))
    assert (shape.terms, shape.channels, shape.repeats) == (case.terms, case.channels, case.repeats)
    assert (shape.spatial, shape.groups, shape.keep) == (4, case.groups, (0,))
    assert shape.multiplications == case.terms * case.channels * case.repeats


def test_a_transposed_convolution_repeats_at_every_input_position():
    args = (zeros(1, 4, 2, 2), zeros(4, 3, 3, 3), None, *PLAIN, True, [0, 0], 1)
    shape = product_shape("convolution", args, zeros(1, 3, 4, 4), (True, False))
    assert (shape.terms, shape.channels, shape.repeats, shape.outputs) == (108, 1, 4, 48)


def test_the_record_is_dense():
    shape = product_shape("mm", (zeros(5, 3), zeros(3, 4)), zeros(5, 4), (True, False))
    dot = shape.dot(7, None)
    assert (dot.weight, dot.bias, dot.nonzeros.tolist()) == (7, None, [3, 3, 3, 3])
    assert dot.multiplications == shape.multiplications == 60
