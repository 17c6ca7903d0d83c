"""Operands of a module's own products go through quantisers of its own, in copies too."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.layers.products import (
    attach_operand_fake_quantize,
    detach_operand_fake_quantizers,
    operand_fake_quantizers,
)


class Times(nn.Module):
    """Multiplies by a number."""

    def __init__(self, number=1.0):
        super().__init__()
        self.number = nn.Parameter(torch.tensor(number))

    def forward(self, x):
        return x * self.number


class Multiplies(nn.Module):
    """Two products, by whatever computes one."""

    def __init__(self, function=torch.matmul):
        super().__init__()
        self.function = function
        self.fused_attn = True

    def forward(self, x, y):
        return self.function(self.function(x, y), y)


X = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
Y = torch.tensor([[[0.0, 1.0], [1.0, 1.0]]])
FUNCTIONS = {
    "operator": lambda x, y: x @ y,
    "matmul": torch.matmul,
    "method": lambda x, y: x.matmul(y),
    "bmm": torch.bmm,
    "bmm, method": lambda x, y: x.bmm(y),
    "mm": lambda x, y: torch.mm(x[0], y[0])[None],
    "mm, method": lambda x, y: x[0].mm(y[0])[None],
    "einsum": lambda x, y: torch.einsum("bij,bjk->bik", x, y),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_operand_goes_through_the_module_of_its_number(function):
    module = Multiplies(FUNCTIONS[function])
    for number, factor in enumerate((2.0, 3.0, 5.0)):
        attach_operand_fake_quantize(module, number, Times(factor))
    assert torch.equal(module(X, Y), (2 * X) @ (3 * Y) * 5 @ Y)
    # Numbers begin anew at every call.
    assert torch.equal(module(X, y=Y), 30 * X @ Y @ Y)
    assert list(operand_fake_quantizers(module)) == [0, 1, 2]


def test_other_functions_are_left_alone():
    module = Multiplies(lambda x, y: F.linear(x[0], y[0])[None] * 2)
    attach_operand_fake_quantize(module, 0, Times(7.0))
    assert torch.equal(module(X, Y), 4 * X @ Y.mT @ Y.mT)


def test_a_fused_kernel_is_two_products():
    query, key, value = torch.randn(3, 2, 4, 5, 6).unbind()

    class Attends(nn.Module):
        def forward(self, query, key, value):
            return F.scaled_dot_product_attention(query, key, value)

    module = Attends()
    expected = module(query, key, value)
    seen = []

    class Notes(nn.Module):
        def forward(self, x):
            seen.append(x.shape)
            return x

    for number in range(4):
        attach_operand_fake_quantize(module, number, Notes())
    torch.testing.assert_close(module(query, key, value), expected)
    assert seen == [(2, 4, 5, 6), (2, 4, 6, 5), (2, 4, 5, 5), (2, 4, 5, 6)]


def test_attaching_unfuses_and_a_second_quantiser_replaces_the_first():
    module = Multiplies()
    attach_operand_fake_quantize(module, 0, Times(2.0))
    assert not module.fused_attn
    attach_operand_fake_quantize(module, 0, Times(3.0))
    assert torch.equal(module(X, Y), 3 * X @ Y @ Y)


def test_detached_products_are_as_they_were():
    module = Multiplies()
    attach_operand_fake_quantize(module, 1, Times(2.0))
    detach_operand_fake_quantizers(module)
    detach_operand_fake_quantizers(module)  # nothing there: nothing to do
    assert torch.equal(module(X, Y), X @ Y @ Y)
    assert "forward" not in vars(module)
    assert list(module.state_dict()) == []


def test_a_copy_feeds_its_own_observers():
    module = Multiplies()
    attach_operand_fake_quantize(module, 0, ActivationFakeQuantize(8))
    twin = copy.deepcopy(nn.Sequential(module))[0]
    twin.train()(X, Y)
    assert twin.operand_fake_quantize["0"].high == 4
    assert module.operand_fake_quantize["0"].seen == 0
    twin.operand_fake_quantize["0"] = Times(0.0)
    assert twin(X, Y).abs().max() == 0
    assert module.eval()(X, Y).abs().max() > 0


def test_gradients_reach_what_the_operands_go_through():
    module = Multiplies()
    attach_operand_fake_quantize(module, 3, Times(2.0))
    module(X, Y).sum().backward()
    assert module.operand_fake_quantize["3"].number.grad == (X @ Y @ Y).sum()


def test_an_error_inside_leaves_no_mode_behind():
    module = Multiplies()
    attach_operand_fake_quantize(module, 0, Times(2.0))
    with pytest.raises(RuntimeError):
        module(X, Y[:, :1])
    assert torch.equal(torch.matmul(X, Y), X @ Y)
    assert torch.equal(module(X, Y), 2 * X @ Y @ Y)


def test_a_module_with_a_forward_of_its_own_is_refused():
    module = Multiplies()
    module.forward = lambda x: x
    with pytest.raises(ValueError, match="forward"):
        attach_operand_fake_quantize(module, 0, Times())
