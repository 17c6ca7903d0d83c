"""Channels that layers share: which of them can go, and which stay."""

from typing import NamedTuple

import pytest
import torch

from micronet_cli.compression.pruning.dead_sides import dead_sides, stuck_readers
from micronet_cli.trace.channel_labels import FIXED
from micronet_cli.trace.links import Side

FOUR = (1, 2, 3, 4)


def network(*extra):
    """A convolution, its BatchNorm and a reader of the same four channels."""
    return [Side("conv", True, FOUR), Side("norm", True, FOUR), Side("reader", False, FOUR), *extra]


class Case(NamedTuple):
    """Which of four channels are needed, the multiple that stays, and the channels that go."""

    needed: list[bool]
    multiple: int
    gone: list[int]


CASES = {
    "two of four": Case([True, False, True, False], multiple=1, gone=[1, 3]),
    "one stays where all are dead": Case([False] * 4, multiple=1, gone=[1, 2, 3]),
    "a dead one stays for the multiple": Case([True, False, False, False], multiple=2, gone=[2, 3]),
    "too few for the multiple": Case([True, True, True, False], multiple=2, gone=[]),
    "none": Case([True] * 4, multiple=1, gone=[]),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_dead_channels_go_from_all_their_layers(case):
    parts = dead_sides(network(), {"reader": torch.tensor(case.needed)}, case.multiple)
    assert len(parts) == bool(case.gone)
    for part in parts:
        assert part.outputs == {"conv": case.gone, "norm": case.gone}
        assert part.inputs == {"reader": case.gone}


def test_a_channel_that_another_layer_needs_stays():
    other = Side("other", False, FOUR)
    needed = {"reader": torch.tensor([False] * 4), "other": torch.tensor([False, True, True, True])}
    (part,) = dead_sides(network(other), needed)
    assert part.inputs == {"reader": [0], "other": [0]}


def test_channels_that_no_layer_reads_stay():
    assert dead_sides(network()[:2], {}) == []


def test_channels_that_are_fixed_stay_and_their_reader_is_named():
    sides = [Side("conv", True, (FIXED, 1)), Side("reader", False, (FIXED, 1))]
    needed = {"reader": torch.tensor([False, True])}
    assert dead_sides(sides, needed) == []
    assert stuck_readers(sides, needed) == ["reader"]


def test_channels_of_other_layers_are_parts_of_their_own():
    """A reader behind a concatenation knows each layer's channels by other numbers."""
    sides = [Side("a", True, (1, 2)), Side("b", True, (3, 4)), Side("reader", False, (1, 2, 3, 4))]
    one, other = dead_sides(sides, {"reader": torch.tensor([False, True, True, False])})
    assert (one.outputs, one.inputs) == ({"a": [0]}, {"reader": [0]})
    assert (other.outputs, other.inputs) == ({"b": [1]}, {"reader": [3]})


def test_channels_that_go_together_count_as_many():
    pairs = Side("conv", True, (1, 1, 2, 2))
    sides = [pairs, Side("reader", False, (1, 1, 2, 2))]
    (part,) = dead_sides(sides, {"reader": torch.tensor([False, False, True, False])}, multiple=2)
    assert part.outputs == {"conv": [0, 1]}
    assert dead_sides(sides, {"reader": torch.tensor([False, False, True, False])}, multiple=4) == []
