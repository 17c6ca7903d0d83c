"""One observation of a network: calls of modules, and a model that is left as it was."""

import pytest
import torch
from torch import nn

from micronet_cli.layers.effective_weight import attach_mask
from micronet_cli.trace.observe import observe
from micronet_cli.trace.trace import Trace


def conv():
    return nn.Conv2d(3, 3, 1)


class Several(nn.Module):
    """Returns nested values, a constant and a number."""

    def forward(self, x):
        return {"twice": [x + x, x], "constant": torch.ones(1), "number": 3}


def test_outputs_are_the_values_among_what_is_returned():
    network = observe(Several(), (3, 4, 4))
    assert sorted(network.outputs) == [0, 1]


class Table(nn.Module):
    """A layer on a buffer, whose result is added to the image."""

    def __init__(self):
        super().__init__()
        self.register_buffer("positions", torch.ones(3, 2))
        self.layer = nn.Linear(2, 1)

    def forward(self, x):
        return x + self.layer(self.positions).view(1, 3, 1, 1)


def test_a_layer_on_a_constant_is_observed_but_free_in_a_trace():
    model = Table()
    assert [op.layer for op in observe(model, (3, 4, 4)).ops] == ["layer", ""]
    traced = Trace(model, (3, 4, 4)).read()
    assert [op.kind for op in traced.ops] == ["add"]
    assert traced.free_multiplications == 6


def test_batch_norms_stay_in_an_observation_and_fold_in_a_trace():
    model = nn.Sequential(conv(), nn.BatchNorm2d(3))
    assert len(observe(model, (3, 4, 4)).ops) == 2
    assert len(Trace(model, (3, 4, 4)).structure.ops) == 1


class Unsaved(nn.Module):
    def __init__(self, persistent):
        super().__init__()
        self.register_buffer("table", torch.ones(1, 3, 1, 1), persistent=persistent)

    def forward(self, x):
        return x * self.table


@pytest.mark.parametrize("persistent", [pytest.param(True, id="saved"), pytest.param(False, id="made by the code")])
def test_buffers_are_stored_where_a_checkpoint_holds_them(persistent):
    network = observe(Unsaved(persistent), (3, 4, 4))
    assert [stored.name for stored in network.stored] == (["table"] if persistent else [])
    assert network.ops[0].constant is not persistent


def test_the_example_has_the_type_of_the_parameters():
    assert observe(conv().half(), (3, 4, 4)).values[0].float_bits == 16
    assert observe(nn.ReLU(), (3, 4, 4)).values[0].float_bits == 32


def test_the_model_its_modes_and_hooks_and_the_random_state_stay():
    model = nn.Sequential(conv(), nn.BatchNorm2d(3), nn.Dropout(), conv()).train()
    attach_mask(model[0])
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    observe(model, (3, 4, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert not [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(4, 2, batch_first=True)

    def forward(self, x):
        y, _ = self.rnn(x.flatten(1, 2))
        return y if y.sum().item() > 0 else -y


def test_a_network_that_reads_a_value_is_refused_and_left_as_it_was():
    model = Branches().train()
    weights = model.rnn._flat_weights
    hooks = dict(torch.nn.modules.module._global_forward_hooks)
    with pytest.raises(ValueError, match=r"layer '\(the network itself\)' reads the value of a tensor in Python"):
        observe(model, (3, 4, 4))
    assert model.training
    assert model.rnn.training
    assert model.rnn._flat_weights is weights
    assert dict(torch.nn.modules.module._global_forward_hooks) == hooks


class Reading(nn.Module):
    def forward(self, x):
        return x.item()


def test_a_failing_forward_leaves_no_hook_and_no_mode_behind():
    model = nn.Sequential(nn.Dropout(), Reading()).train()
    hooks = dict(torch.nn.modules.module._global_forward_pre_hooks)
    with pytest.raises(ValueError, match="reads the value of a tensor in Python"):
        observe(model, (1, 1, 1))
    assert dict(torch.nn.modules.module._global_forward_pre_hooks) == hooks
    assert model.training
    assert model[0].training


class Caching(nn.Module):
    """Keeps what it computed for each device, as LeViT keeps its biases."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.ones(4))
        self.kept = {}

    def forward(self, x):
        self.kept.setdefault(str(x.device), self.bias * 2)
        return x + self.kept[str(x.device)]


def test_what_a_module_keeps_is_as_before():
    model = Caching()
    first = observe(model, (3, 4, 4))
    assert model.kept == {}
    assert observe(model, (3, 4, 4)).stored == first.stored
