"""Which channels of which layers are the same ones, operation by operation."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from micronet_cli.trace.channel_labels import FIXED
from micronet_cli.trace.links import Side, channel_links

SHAPE = (3, 8, 8)


class Between(nn.Module):
    """Two convolutions, an operation between them and the reader."""

    def __init__(self, between, width=4, reads=4):
        super().__init__()
        self.a = nn.Conv2d(3, width, 1)
        self.b = nn.Conv2d(3, width, 1)
        self.between = between
        self.reader = nn.Conv2d(reads, 2, 1)

    def forward(self, x):
        return self.reader(self.between(self.a(x), self.b(x)))


def links(model):
    return {(side.layer, side.is_output): side.channels for side in channel_links(model.eval(), SHAPE)}


class Case(NamedTuple):
    """An operation on the channels of ``a`` (1 to 4) and ``b`` (5 to 8), and the channels that the reader sees."""

    between: Callable
    read: tuple[int, ...]
    reads: int = 4


A, B, STAY = (1, 2, 3, 4), (5, 6, 7, 8), (FIXED,) * 4
CASES = {
    "an activation function": Case(lambda a, b: F.silu(a), A),
    "a sum": Case(lambda a, b: a + b, A),
    "a number": Case(lambda a, b: 2 * a + 1, A),
    "a gate for each channel": Case(lambda a, b: a * b.mean((2, 3), keepdim=True).sigmoid(), A),
    "a gate for each place": Case(lambda a, b: a * b[:, :1], A),
    "a table of places": Case(lambda a, b: a + torch.ones(8, 8), A),
    "a table of channels": Case(lambda a, b: a * torch.ones(4, 1, 1), STAY),
    "a concatenation": Case(lambda a, b: torch.cat([a, b], 1), A + B, reads=8),
    "a shuffle": Case(lambda a, b: a.view(1, 2, 2, 8, 8).transpose(1, 2).reshape(1, 4, 8, 8), (1, 3, 2, 4)),
    "a slice": Case(lambda a, b: a[:, 1:3], (2, 3), reads=2),
    "halves that are added": Case(lambda a, b: a[:, :2] + a[:, 2:], (1, 2), reads=2),
    "pooling": Case(lambda a, b: F.max_pool2d(a, 2), A),
    "resizing": Case(lambda a, b: F.interpolate(a, scale_factor=2, mode="bilinear"), A),
    "padding of places": Case(lambda a, b: F.pad(a, (1, 1, 1, 1)), A),
    "padding of channels": Case(lambda a, b: F.pad(a, (0, 0, 0, 0, 1, 1)), (FIXED, *A, FIXED), reads=6),
    "a mean over places": Case(lambda a, b: a.mean((2, 3)).view(1, 4, 1, 1), A),
    "a mean over channels": Case(lambda a, b: a.mean(1, keepdim=True), (1,), reads=1),
    "a softmax over branches": Case(lambda a, b: torch.stack([a, b], 1).softmax(1).sum(1), A),
    "a softmax over channels": Case(lambda a, b: a * b.softmax(1).sum(1, keepdim=True), A),
    "a normalisation over channels": Case(lambda a, b: F.group_norm(a, 1), STAY),
    "a product": Case(lambda a, b: (a.flatten(2) @ b.flatten(2).mT)[..., None], STAY),
    "a part that is written over": Case(lambda a, b: (a[:, :1].add_(b[:, :1]), a)[1], (FIXED, 2, 3, 4)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_channels_are_followed_through(case):
    found = links(Between(case.between, reads=case.reads))
    assert found["reader", False] == case.read


def test_a_sum_ties_the_channels_of_its_operands():
    found = links(Between(lambda a, b: a + b))
    assert found["b", True] == found["a", True] == A


def test_a_mean_over_channels_ties_them_all():
    found = links(Between(lambda a, b: a.mean(1, keepdim=True), reads=1))
    assert found["a", True] == (1, 1, 1, 1)


def test_what_the_network_returns_stays():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
    assert channel_links(model, SHAPE) == [Side("0", True, (FIXED, FIXED))]


def test_depthwise_convolutions_and_batch_norms_have_the_channels_that_they_read():
    model = nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(2, 4),
    )  # fmt: skip
    found = links(model)
    assert found["0", True] == found["1", True] == found["2", True] == found["5", False] == (1, 2)
    assert ("2", False) not in found


def test_a_flattened_channel_has_many_inputs():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 4))
    assert links(model)["3", False] == (1, 1, 1, 1, 2, 2, 2, 2)


def test_groups_of_several_channels_stay():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 1, 1))
    found = links(model)
    assert found["0", True] == STAY
    assert ("1", True) not in found
    assert found["2", False] == STAY


def test_a_layer_that_is_executed_twice_has_the_same_channels():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.shared, self.last = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 1, 1)

        def forward(self, x):
            return self.last(self.shared(self.shared(self.a(x))))

    found = links(Twice())
    assert found["a", True] == found["shared", False] == found["shared", True] == found["last", False] == (1, 2)


def test_layers_that_share_a_parameter_are_not_followed():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 1, 1))
    model[1].weight = model[0].weight
    assert set(links(model)) == {("2", True), ("3", True), ("3", False)}


def test_the_network_is_left_as_it_was():
    model = Between(lambda a, b: a + b)
    links(model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_layer_that_standardises_its_weight_has_outputs_of_its_own_and_inputs_that_stay():
    standardized = timm.layers.ScaledStdConv2d(4, 5, 1)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), standardized, nn.SiLU(), nn.Conv2d(5, 2, 1))
    found = links(model)
    assert found["0", True] == STAY
    assert ("1", False) not in found
    assert FIXED not in found["1", True]
    assert found["3", False] == found["1", True]
