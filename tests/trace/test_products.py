"""Shapes of products by hand: channels, terms and repeats of every kind of operand."""

import pytest
import torch

from micronet_cli.trace.products import product_shape

PLAIN = ([1, 1], [0, 0], [1, 1])


def zeros(*shape):
    return torch.zeros(shape)


def figures(shape):
    return shape.terms, shape.channels, shape.repeats, shape.outputs, shape.keep, shape.channel_dim


@pytest.mark.parametrize(
    ("kind", "args", "activations", "out", "expected"),
    [
        pytest.param(
            "mm", (zeros(5, 3), zeros(3, 4)), (True, False), (5, 4), (3, 4, 5, 20, (1,), 1), id="weight right"
        ),
        pytest.param("mm", (zeros(5, 3), zeros(3, 4)), (False, True), (5, 4), (3, 5, 4, 20, (0,), 0), id="weight left"),
        pytest.param("mm", (zeros(5, 3), zeros(3, 4)), (True, True), (5, 4), (3, 1, 20, 20, (), 1), id="no weight"),
        pytest.param("mv", (zeros(5, 3), zeros(3)), (False, True), (5,), (3, 5, 1, 5, (0,), 0), id="left of a vector"),
        pytest.param("mv", (zeros(5, 3), zeros(3)), (True, False), (5,), (3, 1, 5, 5, (), 0), id="a vector of weights"),
        pytest.param(
            "bmm", (zeros(2, 5, 3), zeros(2, 3, 4)), (True, False), (2, 5, 4), (3, 8, 5, 40, (0, 2), 2), id="batched"
        ),
        pytest.param("mm", (zeros(5, 0), zeros(0, 4)), (True, True), (5, 4), (0, 1, 20, 20, (), 1), id="empty"),
    ],
)
def test_matrix_products(kind, args, activations, out, expected):
    assert figures(product_shape(kind, args, zeros(*out), activations)) == expected


def test_the_addend_is_the_bias():
    bias, data, weight = zeros(4), zeros(5, 3), zeros(3, 4)
    shape = product_shape("addmm", (bias, data, weight), zeros(5, 4), (False, True, False))
    assert shape.bias is bias
    assert shape.data is data
    assert shape.weight is weight
    assert figures(shape) == (3, 4, 5, 20, (1,), 1)


@pytest.mark.parametrize(
    ("weight", "groups", "expected"),
    [
        pytest.param((8, 4, 3, 3), 1, (36, 8, 4), id="dense"),
        pytest.param((8, 2, 3, 3), 2, (18, 8, 4), id="grouped"),
        pytest.param((4, 1, 3, 3), 4, (9, 4, 4), id="depthwise"),
    ],
)
def test_convolutions(weight, groups, expected):
    out = zeros(1, weight[0], 2, 2)
    args = (zeros(1, 4, 4, 4), zeros(*weight), None, *PLAIN, False, [0, 0], groups)
    shape = product_shape("convolution", args, out, (True, False))
    assert (shape.terms, shape.channels, shape.repeats) == expected
    assert (shape.spatial, shape.groups, shape.keep) == (4, groups, (0,))
    assert shape.multiplications == expected[0] * expected[1] * expected[2]


def test_a_transposed_convolution_repeats_at_every_input_position():
    args = (zeros(1, 4, 2, 2), zeros(4, 3, 3, 3), None, *PLAIN, True, [0, 0], 1)
    shape = product_shape("convolution", args, zeros(1, 3, 4, 4), (True, False))
    assert (shape.terms, shape.channels, shape.repeats, shape.outputs) == (108, 1, 4, 48)


def test_the_record_is_dense():
    shape = product_shape("mm", (zeros(5, 3), zeros(3, 4)), zeros(5, 4), (True, False))
    dot = shape.dot(7, None)
    assert (dot.weight, dot.bias, dot.nonzeros.tolist()) == (7, None, [3, 3, 3, 3])
    assert dot.multiplications == shape.multiplications == 60
