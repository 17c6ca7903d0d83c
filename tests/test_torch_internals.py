"""What the package believes of torch's private names, a contract each: a new release breaks here first."""

import copy

import pytest
import timm.layers
import torch
from torch import nn

from micronet_cli import torch_internals as internals

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, timm.layers.BatchNormAct2d)


@pytest.mark.parametrize("kind", BATCH_NORMS)
def test_batch_norm_is_the_class_behind_all_batch_norms(kind):
    assert isinstance(kind(2), internals.BatchNorm)


def test_no_other_norm_is_a_batch_norm():
    assert not isinstance(nn.InstanceNorm2d(2), internals.BatchNorm)
    assert not isinstance(nn.GroupNorm(1, 2), internals.BatchNorm)


def test_views_share_their_memory_and_copies_do_not():
    tensor = torch.zeros(4, 4)
    assert internals.memory_of(tensor) == internals.memory_of(tensor[1:].t())
    assert internals.memory_of(tensor) != internals.memory_of(tensor.clone())


def test_memory_is_told_apart_on_the_meta_device_too():
    first, second = torch.zeros(3, device="meta"), torch.zeros(3, device="meta")
    assert internals.memory_of(first) != internals.memory_of(second)
    assert internals.memory_of(first) == internals.memory_of(first.view(1, 3))


def test_a_version_counts_writes_in_place():
    tensor = torch.zeros(3)
    before = internals.version_of(tensor)
    tensor.add_(1)
    assert internals.version_of(tensor) > before


def test_a_version_counts_writes_through_views():
    tensor = torch.zeros(3)
    before = internals.version_of(tensor)
    tensor[:1].fill_(2)
    assert internals.version_of(tensor) > before


class _Operators(internals.TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[internals.operator_name(func)] = (internals.writes_to_inputs(func), internals.returns_one(func))
        return func(*args, **(kwargs or {}))


def test_a_dispatch_mode_sees_names_writes_and_returns():
    tensor = torch.zeros(3)
    with _Operators() as mode:
        tensor.add_(1)
        tensor + 1
        tensor.max(dim=0)
    assert mode.seen == {"add_": (True, True), "add": (False, True), "max": (False, False)}


def test_a_compiled_network_holds_the_one_it_was_made_of():
    model = nn.Linear(2, 2)
    assert internals.uncompiled(torch.compile(model)) is model
    assert internals.uncompiled(model) is model


def test_a_recurrent_layer_takes_the_flat_weights_it_is_given():
    layer = nn.GRU(2, 2)
    weights = internals.flat_weights(layer)
    assert len(weights) == 4
    x = torch.ones(1, 1, 2)
    before = layer(x)[0]
    internals.set_flat_weights(layer, [torch.zeros_like(weight) for weight in weights])
    assert not torch.equal(layer(x)[0], before)
    internals.set_flat_weights(layer, weights)
    assert torch.equal(layer(x)[0], before)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        pytest.param(nn.Conv2d(1, 1, 3, padding=(1, 2)), (2, 2, 1, 1), id="given"),
        pytest.param(nn.Conv2d(1, 1, (3, 4), padding="same"), (1, 2, 1, 1), id="same, uneven"),
        pytest.param(nn.Conv2d(1, 1, 3), (0, 0, 0, 0), id="none"),
    ],
)
def test_reversed_padding_is_left_right_top_bottom(layer, expected):
    assert internals.reversed_padding(layer) == expected
    x = torch.ones(1, 1, 8, 8)
    padded = nn.functional.pad(x, internals.reversed_padding(layer))
    assert torch.equal(nn.functional.conv2d(padded, layer.weight, layer.bias), layer(x))


def test_own_tensors_and_children_can_be_replaced_by_name():
    block = nn.Sequential(nn.BatchNorm1d(2))
    norm = block[0]
    internals.parameters_of(norm)["weight"] = nn.Parameter(torch.full((2,), 3.0))
    internals.buffers_of(norm)["running_mean"] = torch.full((2,), 4.0)
    assert torch.equal(block.state_dict()["0.weight"], torch.full((2,), 3.0))
    assert torch.equal(block.state_dict()["0.running_mean"], torch.full((2,), 4.0))
    internals.submodules_of(block)["0"] = nn.Identity()
    assert isinstance(block[0], nn.Identity)


def test_a_layer_without_its_parametrization_computes_the_same_and_leaves_copies_alone():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    twin, x = copy.deepcopy(layer), torch.randn(4, 3)
    plain = internals.unparametrized(twin)
    assert type(plain) is nn.Linear
    assert set(plain.state_dict()) == {"weight", "bias"}
    assert torch.equal(plain(x), layer(x))
    assert torch.equal(twin(x), layer(x))


def test_a_layer_without_its_parametrizations_has_what_they_made_of_its_bias_too():
    layer = nn.utils.parametrizations.weight_norm(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), "bias")
    plain, x = internals.unparametrized(layer), torch.randn(4, 3)
    assert set(plain.state_dict()) == {"weight", "bias"}
    assert torch.equal(plain(x), layer(x))


def test_a_hook_whose_entry_is_deleted_is_gone():
    layer = nn.Identity()
    layer.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    layer.register_forward_hook(lambda module, inputs, output: output + 10)
    assert layer(torch.zeros(())) == 11
    internals.forward_pre_hooks_of(layer).clear()
    assert layer(torch.zeros(())) == 10
    internals.forward_hooks_of(layer).clear()
    assert layer(torch.zeros(())) == 0


def test_timm_keeps_the_arguments_that_a_network_was_built_with():
    model = timm.create_model("test_resnet", num_classes=3, in_chans=1)
    assert internals.constructor_arguments(model) == {"num_classes": 3, "in_chans": 1}
    assert internals.constructor_arguments(nn.Identity()) == {}


def test_trees_are_flattened_and_mapped():
    tree = {"a": [torch.zeros(1), (torch.ones(1), None)]}
    assert [leaf is None for leaf in internals.tree_leaves(tree)] == [False, False, True]
    doubled = internals.tree_map(lambda leaf: leaf if leaf is None else leaf * 2, tree)
    assert doubled["a"][1][0] == 2
