"""Zeros reach the averaged network."""

import copy

import torch
from torch import nn

from micronet_cli.compression.pruning.filter_constants import silence
from micronet_cli.training.averaging import copy_zeros


def test_a_dropped_filter_is_zero_in_the_averaged_network_too():
    norm = nn.BatchNorm2d(4)
    nn.init.constant_(norm.bias, 2.0)
    averaged = copy.deepcopy(norm)
    silence([norm.weight, norm.bias], torch.tensor([True, False, True, False]))
    copy_zeros(norm, averaged)
    assert averaged.weight.tolist() == [1, 0, 1, 0]
    assert averaged.bias.tolist() == [2, 0, 2, 0]


def test_masks_are_copied_and_other_buffers_are_not():
    class Masked(nn.Module):
        def __init__(self, keep, seen):
            super().__init__()
            self.register_buffer("mask", torch.tensor(keep))
            self.register_buffer("seen", torch.tensor(seen))

    average = Masked([True, True], 1.0)
    copy_zeros(Masked([True, False], 2.0), average)
    assert average.mask.tolist() == [True, False]
    assert average.seen.item() == 1.0


def test_parameters_keep_their_average_where_the_source_is_not_zero():
    source, average = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        source.weight.copy_(torch.tensor([[3.0, 0.0]]))
        average.weight.copy_(torch.tensor([[1.0, 2.0]]))
    copy_zeros(source, average)
    assert average.weight.tolist() == [[1.0, 0.0]]
    assert source.weight.tolist() == [[3.0, 0.0]]
