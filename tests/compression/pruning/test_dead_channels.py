"""Channels that are computed for nothing are found, and only what leaves the outputs as they were is named."""

import sys

import pytest
import torch
from torch import nn

from micronet_cli.compression.pruning.dead_channels import find_dead_channels
from micronet_cli.layers.effective_weight import attach_mask


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))


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
