"""Tensors of a network by name: of a module that several others hold there is one set."""

from torch import nn

from micronet_cli.artifact.own_state import own_state


def test_a_shared_module_goes_by_its_first_name():
    shared = nn.Linear(2, 2, bias=False)
    model = nn.ModuleDict({"a": nn.Sequential(shared), "b": nn.Sequential(shared), "c": nn.Linear(2, 1)})
    assert list(model.state_dict()) == ["a.0.weight", "b.0.weight", "c.weight", "c.bias"]
    assert list(own_state(model)) == ["a.0.weight", "c.weight", "c.bias"]


def test_parameters_and_buffers_of_the_network_itself_count():
    model = nn.BatchNorm1d(1)
    assert list(own_state(model)) == list(model.state_dict())
