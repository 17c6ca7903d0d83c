"""What is computed of parameters alone: it is free, and follows the tensor that it began from."""

import torch

from micronet_cli.trace.observe import observe, record
from tests.trace.test_recorder import Function, names


def rounded(function):
    """Names of the stored tensors that rounding made."""
    recorder, network = record(Function(function), (2, 4, 4))
    return [network.stored[index].name for index in recorder.constants.rounded]


def test_arithmetic_on_parameters_has_the_name_of_its_origin():
    assert names(lambda m, x: x + m.weight) == [["weight"]]
    assert names(lambda m, x: x + m.weight.exp()) == [["weight (exp)"]]
    assert names(lambda m, x: x + m.weight[[1, 0, 2, 3]]) == [["weight"]]


def test_products_of_parameters_alone_are_counted_as_free():
    network = observe(Function(lambda m, x: x @ (m.weight @ m.weight)), (2, 4, 4))
    assert network.free_multiplications == 4 * 4 * 4
    assert len([op for op in network.ops if op.dot]) == 1


def test_what_is_rounded_stays_so_behind_further_arithmetic():
    assert rounded(lambda m, x: x + m.weight) == []
    assert rounded(lambda m, x: x + torch.round(m.weight)) == ["weight (round)"]
    assert rounded(lambda m, x: x + torch.round(m.weight) * 2) == ["weight (round)", "weight (round) (mul)"]
