"""What is known about operators: names, bits that stay, and how far reductions reach."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import pytest
import torch

from micronet_cli.trace.kinds import keeps_bits, kind_of, program_constant, reduction

aten = torch.ops.aten
X = torch.zeros(1, 2, 4, 4)
NORMED = (X, None, None, None, None)  # without weight, bias and statistics


class Operator(NamedTuple):
    """A call of an operator, and the kind under which it is recorded."""

    func: object
    args: tuple
    kind: str
    kwargs: Mapping = MappingProxyType({})


OPERATORS = {
    "in place": Operator(aten.add_.Tensor, (X, X), "add"),
    "copy_ keeps its mark": Operator(aten.copy_.default, (X, X), "copy_"),
    "gelu": Operator(aten.gelu.default, (X,), "gelu"),
    "gelu by tanh": Operator(aten.gelu.default, (X,), "gelu_tanh", {"approximate": "tanh"}),
    "one bound": Operator(aten.clamp.default, (X, 0), "clamp_min"),
    "two bounds": Operator(aten.clamp.default, (X, 0, 6), "clamp"),
    "an upper bound": Operator(aten.clamp_.default, (X, None, 6), "clamp_min"),
    "a named bound": Operator(aten.clamp.default, (X,), "clamp_min", {"min": 0, "max": None}),
    "own statistics": Operator(aten.native_batch_norm.default, (*NORMED, True, 0.1, 1e-5), "instance_norm"),
    "running statistics": Operator(aten.native_batch_norm.default, (*NORMED, False, 0.1, 1e-5), "native_batch_norm"),
}


@pytest.mark.parametrize("case", OPERATORS.values(), ids=OPERATORS)
def test_kind_of_an_operator(case):
    assert kind_of(case.func, case.args, case.kwargs) == case.kind


class Bits(NamedTuple):
    """An operation, and whether its output holds only values of its inputs."""

    kind: str
    args: tuple
    kept: bool


BITS = {
    "move": Bits("view", (X,), kept=True),
    "relu": Bits("relu", (X,), kept=True),
    "padding by default": Bits("constant_pad_nd", (X, [1, 1]), kept=True),
    "padding with zero": Bits("constant_pad_nd", (X, [1, 1], 0), kept=True),
    "padding with a value": Bits("constant_pad_nd", (X, [1, 1], 0.5), kept=False),
    "sum": Bits("add", (X, X), kept=False),
}


@pytest.mark.parametrize("case", BITS.values(), ids=BITS)
def test_keeps_bits(case):
    assert keeps_bits(case.kind, case.args) is case.kept


class Reduction(NamedTuple):
    """An operation on X, and how far it reaches."""

    kind: str
    args: tuple
    outputs: list
    taken: int
    rows: int


REDUCTIONS = {
    "pool": Reduction("avg_pool2d", (X, [2, 2]), [torch.zeros(1, 2, 2, 2)], taken=32, rows=8),
    "pool of one number": Reduction("avg_pool2d", (X, 2), [torch.zeros(1, 2, 2, 2)], taken=32, rows=8),
    "softmax": Reduction("_softmax", (X, -1, False), [X], taken=32, rows=8),
    "norm": Reduction("native_layer_norm", (X,), [X, torch.zeros(1, 2, 4, 1)], taken=32, rows=8),
    "mean": Reduction("mean", (X,), [torch.zeros(1, 2)], taken=32, rows=2),
}


@pytest.mark.parametrize("case", REDUCTIONS.values(), ids=REDUCTIONS)
def test_reduction(case):
    assert reduction(case.kind, case.args, case.outputs, X) == (case.taken, case.rows)


def test_only_arithmetic_with_a_number_has_a_program_constant():
    assert program_constant("add", (X, 3))
    assert program_constant("rsub", (X, 1))
    assert not program_constant("add", (X, X))
    assert not program_constant("relu", (X,))
