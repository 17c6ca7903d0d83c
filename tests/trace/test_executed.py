"""A dispatched operation: run without arithmetic on activations, its arguments as plain data."""

import pytest
import torch

from micronet_cli.trace.executed import Executed, run, tensors_of

ADD = torch.ops.aten.add.Tensor
CAT = torch.ops.aten.cat.default


def test_one_meta_operand_makes_the_result_meta():
    weight = torch.ones(3)
    activation = torch.empty(2, 3, device="meta")
    total = run(ADD, (activation, weight), {"alpha": 2}, [activation, weight])
    assert total.is_meta
    assert total.shape == (2, 3)
    joined = run(CAT, ([activation, weight.expand(2, 3)], 1), {}, [activation, weight])
    assert joined.is_meta
    assert joined.shape == (2, 6)


def test_parameters_alone_are_computed():
    weight = torch.ones(3)
    assert run(ADD, (weight, weight), {"alpha": 2}, [weight, weight]).tolist() == [3, 3, 3]


def test_tensors_are_left_out_of_the_plain_arguments():
    x = torch.ones(2)
    executed = Executed("cat", (x, [x, 1], 2), {"out": x, "alpha": 3}, [x, x, x], [x])
    assert executed.plain_arguments == ((None, 1), 2)
    assert executed.plain_options == {"out": None, "alpha": 3}


def test_the_operand_that_does_not_depend_on_the_example_is_the_weight():
    left = torch.ones(2, 3)
    right = torch.ones(3, 4)
    executed = Executed("mm", (left, right), {}, [left, right], [left @ right])
    assert executed.product(lambda tensor: tensor is left).weight is right
    assert executed.product(lambda tensor: tensor is right).weight is left
    assert executed.product(lambda _: True).multiplications == pytest.approx(24)


def test_tensors_are_found_in_what_an_operator_returns():
    x, y = torch.ones(2), torch.ones(3)
    assert [tensor.numel() for tensor in tensors_of((x, [y]))] == [2, 3]
