"""Channels that are computed for nothing are found, and only what leaves the outputs as they were is named."""

import pytest
import torch
from torch import nn

from micronet_cli.compression.pruning import dead_channels
from micronet_cli.compression.pruning.dead_channels import find_dead_channels
from micronet_cli.layers.effective_weight import attach_mask

SHAPE = (3, 4, 4)


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))


def test_dead_channels_of_a_small_network_are_found():
    model = two_layers()
    attach_mask(model[2]).mask[:, [0, 2]] = False
    found = find_dead_channels(model, SHAPE)
    assert (found.removal.outputs, found.removal.inputs) == ({"0": [0, 2]}, {"2": [0, 2]})
    assert found.left == []


class CountsItself(nn.Module):
    """A network that states a number of channels in its code; ``plain`` layers before are like any other's."""

    def __init__(self):
        super().__init__()
        self.plain = two_layers()
        self.stated = nn.Conv2d(2, 4, 1)
        self.reader = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.stated(self.plain(x))
        return self.reader(x.view(-1, 4, 4, 4))


def test_what_the_code_depends_on_is_left_whole_and_named():
    torch.manual_seed(0)
    model = CountsItself()
    with torch.no_grad():
        model.plain[2].weight[:, 1] = 0
        model.reader.weight[:, 3] = 0
    found = find_dead_channels(model, SHAPE)
    assert (found.removal.outputs, found.removal.inputs) == ({"plain.0": [1]}, {"plain.2": [1]})
    assert found.left == ["stated"]


def test_dead_channels_behind_a_normalisation_over_channels_are_named():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(1, 4), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        model[2].weight[:, 1] = 0
    found = find_dead_channels(model, SHAPE)
    assert found.removal.outputs == {}
    assert found.left == ["2"]


@pytest.mark.parametrize("checks", [0, 1])
def test_what_cannot_be_told_in_time_stays(checks, monkeypatch):
    monkeypatch.setattr(dead_channels, "MOST_CHECKS", checks)
    model = CountsItself()
    with torch.no_grad():
        model.plain[2].weight[:, 1] = 0
        model.reader.weight[:, 3] = 0
    found = find_dead_channels(model, SHAPE)
    assert found.removal.outputs == {}
    assert found.left == ["plain.0", "stated"]
