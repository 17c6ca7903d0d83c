"""What is known about operators: names, bits that stay, and how far reductions reach."""

import pytest
import torch

from micronet_cli.trace.kinds import keeps_bits, kind_of, program_constant, reduction

aten = torch.ops.aten
X = torch.zeros(1, 2, 4, 4)


@pytest.mark.parametrize(
    ("func", "args", "kwargs", "kind"),
    [
        pytest.param(aten.add_.Tensor, (X, X), {}, "add", id="in place"),
        pytest.param(aten.copy_.default, (X, X), {}, "copy_", id="copy_ keeps its mark"),
        pytest.param(aten.gelu.default, (X,), {}, "gelu", id="gelu"),
        pytest.param(aten.gelu.default, (X,), {"approximate": "tanh"}, "gelu_tanh", id="gelu by tanh"),
        pytest.param(aten.clamp.default, (X, 0), {}, "clamp_min", id="one bound"),
        pytest.param(aten.clamp.default, (X, 0, 6), {}, "clamp", id="two bounds"),
        pytest.param(aten.clamp_.default, (X, None, 6), {}, "clamp_min", id="an upper bound"),
        pytest.param(aten.clamp.default, (X,), {"min": 0, "max": None}, "clamp_min", id="a named bound"),
        pytest.param(
            aten.native_batch_norm.default, (X, *[None] * 4, True, 0.1, 1e-5), {}, "instance_norm", id="own statistics"
        ),
        pytest.param(
            aten.native_batch_norm.default, (X, *[None] * 4, False, 0.1, 1e-5), {}, "native_batch_norm", id="running"
        ),
    ],
)
def test_kind_of_an_operator(func, args, kwargs, kind):
    assert kind_of(func, args, kwargs) == kind


@pytest.mark.parametrize(
    ("kind", "args", "keeps"),
    [
        pytest.param("view", (X,), True, id="move"),
        pytest.param("relu", (X,), True, id="relu"),
        pytest.param("constant_pad_nd", (X, [1, 1]), True, id="padding by default"),
        pytest.param("constant_pad_nd", (X, [1, 1], 0), True, id="padding with zero"),
        pytest.param("constant_pad_nd", (X, [1, 1], 0.5), False, id="padding with a value"),
        pytest.param("add", (X, X), False, id="sum"),
    ],
)
def test_keeps_bits(kind, args, keeps):
    assert keeps_bits(kind, args) is keeps


@pytest.mark.parametrize(
    ("kind", "args", "outputs", "expected"),
    [
        pytest.param("avg_pool2d", (X, [2, 2]), [torch.zeros(1, 2, 2, 2)], (32, 8), id="pool"),
        pytest.param("avg_pool2d", (X, 2), [torch.zeros(1, 2, 2, 2)], (32, 8), id="pool of one number"),
        pytest.param("_softmax", (X, -1, False), [X], (32, 8), id="softmax"),
        pytest.param("native_layer_norm", (X,), [X, torch.zeros(1, 2, 4, 1)], (32, 8), id="norm"),
        pytest.param("mean", (X,), [torch.zeros(1, 2)], (32, 2), id="mean"),
    ],
)
def test_reduction(kind, args, outputs, expected):
    assert reduction(kind, args, outputs, X) == expected


def test_only_arithmetic_with_a_number_has_a_program_constant():
    assert program_constant("add", (X, 3))
    assert program_constant("rsub", (X, 1))
    assert not program_constant("add", (X, X))
    assert not program_constant("relu", (X,))
