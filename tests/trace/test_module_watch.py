"""Calls of modules, and what those have done that execute arithmetic of their own."""

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from micronet_cli.trace.observe import observe


def conv():
    return nn.Conv2d(3, 3, 1)


def spans(network):
    return [(call.module, call.first, call.end) for call in network.calls]


def values(reads):
    return [read.value for read in reads]


def test_calls_are_in_the_order_of_their_ends_with_nested_modules():
    network = observe(nn.Sequential(nn.Sequential(conv(), nn.ReLU()), conv()), (3, 4, 4))
    assert spans(network) == [("0.0", 0, 1), ("0.1", 1, 2), ("0", 0, 2), ("1", 2, 3), ("", 0, 3)]
    assert network.ends == {"0.0": 1, "0.1": 2, "0": 2, "1": 3, "": 3}


def test_calls_name_what_goes_in_and_what_comes_out():
    network = observe(nn.Sequential(nn.Sequential(conv(), nn.ReLU()), conv()), (3, 4, 4))
    read = [(call.module, values(call.inputs), values(call.outputs)) for call in network.calls]
    assert read == [("0.0", [0], [1]), ("0.1", [1], [2]), ("0", [0], [2]), ("1", [2], [3]), ("", [0], [3])]
    assert network.outputs == (3,)
    assert network.calls[0].inputs[0].layout.shape == (1, 3, 4, 4)


def test_a_module_that_runs_twice_has_two_calls():
    layer = conv()
    network = observe(nn.Sequential(layer, nn.ReLU(), layer), (3, 4, 4))
    assert spans(network) == [("0", 0, 1), ("1", 1, 2), ("0", 2, 3), ("", 0, 3)]
    assert network.ends["0"] == 3


def test_a_module_that_moves_data_executes_no_operation():
    network = observe(nn.Sequential(nn.Flatten(), nn.Identity()), (3, 4, 4))
    assert spans(network) == [("0", 0, 0), ("1", 0, 0), ("", 0, 0)]
    assert network.calls[0].inputs[0].layout.shape == (1, 3, 4, 4)
    assert network.calls[0].outputs[0].layout.shape == (1, 48)
    assert network.outputs == (0,)


class MadeInForward(nn.Module):
    def forward(self, x):
        return nn.ReLU()(x)


def test_a_module_made_in_the_forward_counts_as_the_one_that_runs_it():
    network = observe(nn.Sequential(MadeInForward()), (3, 4, 4))
    assert spans(network) == [("0", 0, 1), ("", 0, 1)]
    assert network.ops[0].layer == "0"


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRU(4, 5, batch_first=True)

    def forward(self, x):
        rows, _ = self.cell(x[:, 0])
        return rows


def test_a_recurrent_layer_has_its_weights_again():
    model = Recurrent()
    images = torch.randn(1, 2, 4, 4)
    before = model(images)
    network = observe(model, (2, 4, 4))
    assert "cell" in network.ends
    assert torch.equal(model(images), before)


def test_what_parametrisations_make_has_the_name_of_the_tensor():
    network = observe(nn.Sequential(weight_norm(conv())), (3, 4, 4))
    (op,) = [op for op in network.ops if op.dot]
    weight = network.stored[op.dot.weight]
    assert (weight.name, weight.layer, weight.derived) == ("0.weight", "0", True)
