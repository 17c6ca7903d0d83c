"""What the recorder writes down of an operation: operands, constants, bits and what is free."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.trace.observe import observe
from micronet_cli.trace.trace import Trace


class Function(nn.Module):
    """A module from a function, with a parameter and a quantiser."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.ones(4, 4))
        self.quantizer = ActivationFakeQuantize(4)

    def forward(self, x):
        return self.function(self, x)


def ops(function, shape=(2, 4, 4)):
    return observe(Function(function), shape).ops


def names(function):
    network = observe(Function(function), (2, 4, 4))
    return [[network.stored[index].name for index in op.parameters] for op in network.ops]


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda m, x: x.transpose(2, 3), id="transpose"),
        pytest.param(lambda m, x: x.view(2, 16)[:, 3:], id="slice"),
        pytest.param(lambda m, x: x.detach().expand(2, 2, 4, 4), id="expand"),
        pytest.param(lambda m, x: torch.zeros_like(x), id="factory"),
        pytest.param(lambda m, x: m.weight * 2 + 1, id="parameters alone"),
    ],
)
def test_views_and_constants_are_no_operations(function):
    assert ops(function) == ()


def test_operands_are_values_stored_tensors_and_constants():
    first, second, third = ops(lambda m, x: (x + m.weight) * 2 - x)
    assert (first.kind, first.inputs, first.constant) == ("add", (0,), False)
    assert len(first.parameters) == 1
    assert (second.kind, second.constant, second.arguments) == ("mul", True, (2,))
    assert (third.inputs, third.outputs) == ((2, 0), (3,))


def test_a_tensor_of_the_program_is_a_constant_of_no_store():
    (op,) = ops(lambda m, x: x * torch.full((4,), 2.0))
    assert op.constant
    assert op.parameters == ()


def test_an_operand_that_is_read_twice_is_listed_once():
    (op,) = ops(lambda m, x: x * x)
    assert op.inputs == (0,)
    assert len(op.reads) == 1


def test_options_and_arguments_hold_no_tensor():
    (op,) = ops(lambda m, x: torch.cat([x, x[:, :1]], 1))
    assert op.arguments == (1,)
    (op,) = ops(lambda m, x: torch.add(x, m.weight, alpha=3))
    assert (op.arguments, op.options) == ((None,), {"alpha": 3})


def test_an_addend_that_is_an_activation_is_a_sum_of_its_own():
    product, total = ops(lambda m, x: torch.addmm(x[0, 0], x[0, 1], m.weight))
    assert product.dot.bias is None
    assert (total.kind, total.elements) == ("add", 16)
    assert total.outputs == product.outputs


def test_a_stored_addend_is_the_bias():
    (product,) = ops(lambda m, x: torch.addmm(m.weight[0], x[0, 1], m.weight))
    assert product.dot.bias == product.dot.weight == 0
    assert product.parameters == ()


def test_a_quantiser_is_one_operation_that_makes_codes():
    network = observe(Function(lambda m, x: m.quantizer(x)), (2, 4, 4))
    assert [op.kind for op in network.ops] == ["quantize"]
    assert network.values[1].quantizers == {"quantizer"}
    assert network.values[1].buffer == 1


def test_a_quantised_parameter_is_stored_with_its_quantiser():
    network = observe(Function(lambda m, x: x @ m.quantizer(m.weight)), (2, 4, 4))
    (op,) = network.ops
    assert network.stored[op.dot.weight].quantizer == "quantizer"


def test_an_operation_in_place_makes_a_value_in_the_old_buffer():
    network = observe(Function(lambda m, x: F.relu_(x + 1)), (2, 4, 4))
    assert [value.buffer for value in network.values] == [0, 1, 1]
    network = observe(Function(lambda m, x: F.relu(x + 1)), (2, 4, 4))
    assert [value.buffer for value in network.values] == [0, 1, 2]


def test_a_channel_shuffle_is_a_product_with_a_permutation():
    def shuffle(m, x):
        return x.view(1, 2, 3, 2, 2).transpose(1, 2).reshape(1, 6, 2, 2)

    network = observe(Function(shuffle), (6, 2, 2))
    op = network.ops[-1]
    assert (op.kind, op.rows) == ("permute_channels", 24)
    matrix = network.stored[op.parameters[0]]
    assert (matrix.elements, matrix.nonzeros) == (36, 6)


def test_a_value_read_in_a_layer_is_refused_by_its_name():
    model = nn.Sequential(nn.ReLU(), Function(lambda m, x: x * float(x.mean())))
    with pytest.raises(ValueError, match="layer '1' reads the value"):
        observe(model, (2, 4, 4))


def test_one_operator_may_multiply_in_any_order():
    weight = nn.Parameter(torch.ones(3, 16))

    def both(self, x):
        rows = x.flatten(2)[0]  # [2, 16]
        return (rows @ self.weight.t()).sum() + (self.weight @ rows.t()).sum()

    module = Function(both)
    module.weight = weight
    trace = Trace(module, (2, 4, 4))
    with torch.no_grad():
        weight[0] = 0
    nonzeros = [op.dot.nonzeros.tolist() for op in trace.read().ops if op.dot]
    assert nonzeros == [[0, 16, 16], [0, 16, 16]]
