"""Labels of channels: what goes together, what stays, and tensors that are the same along a dimension."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from micronet_cli.trace.channel_labels import FIXED, Ties, along, compressed, varying_dims


def test_labels_are_never_handed_out_twice():
    ties = Ties()
    assert ties.new(2).tolist() == [1, 2]
    assert ties.new(1).tolist() == [3]
    assert ties.classes().tolist() == [FIXED, 1, 2, 3]


def test_ties_reach_as_far_as_a_chain_of_them():
    ties = Ties()
    labels = ties.new(5)
    ties.tie(labels[:2], labels[2:4])
    ties.tie(labels[3], labels[4])
    assert ties.classes().tolist() == [FIXED, 1, 2, 1, 2, 2]


def test_what_goes_with_a_fixed_channel_stays():
    ties = Ties()
    labels = ties.new(3)
    ties.tie(labels[0], labels[2])
    ties.fix(labels[2])
    assert ties.classes().tolist() == [FIXED, FIXED, 2, FIXED]


def test_ties_along_a_dimension_leave_the_others_apart():
    ties = Ties()
    labels = ties.new(4).view(2, 2)
    assert ties.tie_along(labels, 0).tolist() == [[1, 2]]
    assert ties.classes().tolist() == [FIXED, 1, 2, 1, 2]


class Case(NamedTuple):
    """Labels, and what is left of them."""

    labels: Tensor
    compressed: list


CASES = {
    "all the same": Case(torch.ones(2, 3), [[1]]),
    "one dimension": Case(torch.tensor([[1, 2], [1, 2]]), [[1, 2]]),
    "two dimensions": Case(torch.tensor([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    "one element": Case(torch.tensor([[7]]), [[7]]),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_labels_are_compressed_along_dimensions_where_they_are_the_same(case):
    assert compressed(case.labels).tolist() == case.compressed


def test_dimensions_are_counted_from_the_last():
    assert varying_dims([torch.zeros(2, 1, 1), torch.zeros(3)], 3) == [-3, -1]


def test_labels_along_a_dimension_are_those_of_every_place():
    labels = torch.arange(4).view(1, 4, 1)
    assert along(labels, 1, 4).tolist() == [0, 1, 2, 3]
    assert along(torch.ones(1, 1, 1), -1, 2).tolist() == [1, 1]
    assert along(labels, -1, 2) is None
