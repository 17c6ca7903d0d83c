"""Groups of layers that share channels: which of the channels can go, and which groups stay whole."""

import sys
from typing import NamedTuple

import pytest
import torch
from torch import nn

from micronet_cli.compression.pruning import channel_groups
from micronet_cli.compression.pruning.channel_groups import Member, dead_in_group, groups

FIRST, NORM, READER = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)


def group(*extra):
    """A convolution's outputs, a BatchNorm and a reader of the same four channels."""
    numbers = range(4)
    members = [Member(FIRST, True, numbers, numbers), Member(NORM, True, numbers, numbers)]
    return [*members, Member(READER, False, numbers, numbers), *extra]


def dead(live, multiple=1, members=None):
    found = dead_in_group(members or group(), {READER: torch.tensor(live)}, multiple)
    return found.outputs.get(FIRST), found.inputs.get(READER)


class Case(NamedTuple):
    """Which of four channels are read, the multiple that stays, and the channels that go."""

    live: list[bool]
    multiple: int
    gone: list[int] | None


CASES = {
    "two of four": Case([True, False, True, False], multiple=1, gone=[1, 3]),
    "one stays where all are dead": Case([False] * 4, multiple=1, gone=[1, 2, 3]),
    "a dead one stays for the multiple": Case([True, False, False, False], multiple=2, gone=[2, 3]),
    "too few for the multiple": Case([True, True, True, False], multiple=2, gone=None),
    "none": Case([True] * 4, multiple=1, gone=None),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_dead_channels_of_a_group(case):
    assert dead(case.live, case.multiple) == (case.gone, case.gone)


EXTRA = {
    "statistics over the channels": Member(nn.LayerNorm(4), True, range(4), range(4)),
    "a grouped reader": Member(nn.Conv2d(4, 4, 1, groups=2), False, range(4), range(4)),
    "a reader that was not executed": Member(nn.Linear(4, 2), False, range(4), range(4)),
}


@pytest.mark.parametrize("extra", EXTRA.values(), ids=EXTRA)
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
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))


def test_torch_pruning_that_is_not_installed_is_an_import_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ImportError):
        list(groups(two_layers(), (3, 4, 4)))


def test_a_network_that_cannot_be_followed_is_a_value_error():
    pytest.importorskip("torch_pruning")
    wrong_shape = (5, 4, 4)
    with pytest.raises(ValueError, match=r"torch-pruning cannot follow this network \(RuntimeError: .* channels"):
        list(channel_groups.groups(two_layers(), wrong_shape))
