"""Which channels are computed for nothing: zero for every image, or read by no layer."""

import sys

import pytest
import torch
from torch import nn

from micronet_cli.compression.pruning.dead_channels import (
    Member,
    dead_in_group,
    find_dead_channels,
    needed_inputs,
    plain_copy,
)
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.layers.effective_weight import attach_mask, effective_weight

FIRST, NORM, READER = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)


def group(*extra):
    """A convolution's outputs, a BatchNorm and a reader of the same four channels."""
    numbers = range(4)
    members = [Member(FIRST, True, numbers, numbers), Member(NORM, True, numbers, numbers)]
    return [*members, Member(READER, False, numbers, numbers), *extra]


def dead(live, multiple=1, members=None):
    found = dead_in_group(members or group(), {READER: torch.tensor(live)}, multiple)
    return found.outputs.get(FIRST), found.inputs.get(READER)


@pytest.mark.parametrize(
    ("live", "multiple", "gone"),
    [
        pytest.param([True, False, True, False], 1, [1, 3], id="two of four"),
        pytest.param([False] * 4, 1, [1, 2, 3], id="one stays where all are dead"),
        pytest.param([True, False, False, False], 2, [2, 3], id="a dead one stays for the multiple"),
        pytest.param([True, True, True, False], 2, None, id="too few for the multiple"),
        pytest.param([True] * 4, 1, None, id="none"),
    ],
)
def test_dead_channels_of_a_group(live, multiple, gone):
    assert dead(live, multiple) == (gone, gone)


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(Member(nn.LayerNorm(4), True, range(4), range(4)), id="statistics over the channels"),
        pytest.param(Member(nn.Conv2d(4, 4, 1, groups=2), False, range(4), range(4)), id="a grouped reader"),
        pytest.param(Member(nn.Linear(4, 2), False, range(4), range(4)), id="a reader that was not executed"),
    ],
)
def test_a_group_with_a_layer_that_cannot_shrink_stays(extra):
    assert dead([True, False, True, False], members=group(extra)) == (None, None)


def test_a_group_that_no_layer_reads_stays():
    assert dead([False] * 4, members=group()[:2]) == (None, None)


def test_numbers_of_a_layer_are_its_own():
    """A reader behind a concatenation knows the group's channels by other numbers."""
    reader = nn.Conv2d(6, 2, 1)
    members = [Member(FIRST, True, range(4), range(4)), Member(reader, False, range(4), range(2, 6))]
    needed = {reader: torch.tensor([True, True, False, True, True, False])}
    found = dead_in_group(members, needed)
    assert found.outputs == {FIRST: [0, 3]}
    assert found.inputs == {reader: [2, 5]}


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))


def test_a_needed_input_is_not_zero_and_read():
    model = two_layers()
    with torch.no_grad():
        model[0].weight[0] = 0
        model[0].bias[0] = 0
        model[0].weight[3] = 0  # its bias is left
        model[2].weight[:, 1] = 0
    needed = needed_inputs(model, (3, 4, 4))
    assert needed[model[0]].tolist() == [True] * 3
    assert needed[model[2]].tolist() == [False, False, True, True]


def test_signs_that_cancel_or_are_cut_do_not_make_a_channel_dead():
    model = two_layers()
    with torch.no_grad():
        model[0].weight.fill_(-1)
        model[0].bias.fill_(-1)
    assert needed_inputs(model, (3, 4, 4))[model[2]].all()


def test_a_plain_copy_has_effective_weights_and_leaves_the_model():
    model = two_layers().train()
    attach_mask(model[0]).mask[0] = False
    Quantizer({"all": BitsRule(".*")}, 4, None).attach(model)
    twin = plain_copy(model)
    assert effective_weight(twin[0]) is None
    assert not twin[0].weight[0].any()
    assert torch.equal(twin[0].weight, model[0].weight)
    assert not twin.training
    assert model.training
    assert effective_weight(model[0]) is not None


def test_torch_pruning_that_is_not_installed_is_an_import_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ImportError):
        find_dead_channels(two_layers(), (3, 4, 4))


def test_dead_channels_of_a_small_network_are_found():
    pytest.importorskip("torch_pruning")
    model = two_layers()
    attach_mask(model[2]).mask[:, [0, 2]] = False
    removal = find_dead_channels(model, (3, 4, 4))
    assert (removal.outputs, removal.inputs) == ({"0": [0, 2]}, {"2": [0, 2]})
