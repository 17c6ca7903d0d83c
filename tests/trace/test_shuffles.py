"""Channel shuffles are told apart from other moves of data."""

import pytest
import torch

from micronet_cli.trace.shuffles import ShuffleWatch

X = torch.zeros(1, 6, 2, 2)


def shuffled(source, parts, swap):
    """What the watch says at the end of split, swap, copy and merge."""
    watch = ShuffleWatch()
    split = source.view(1, *parts, 2, 2)
    said = [watch.see("view", (source, [*split.shape]), split)]
    kind, order = swap
    swapped = split.transpose(*order) if kind == "transpose" else split.permute(order)
    said.append(watch.see(kind, (split, *order) if kind == "transpose" else (split, order), swapped))
    copied = swapped.contiguous()
    said.append(watch.see("clone", (swapped,), copied))
    merged = copied.view(source.shape)
    said.append(watch.see("view", (copied, [*merged.shape]), merged))
    return said


@pytest.mark.parametrize(
    ("parts", "swap", "channels"),
    [
        pytest.param((2, 3), ("transpose", (1, 2)), 6, id="transpose"),
        pytest.param((2, 3), ("transpose", (-4, -3)), 6, id="transpose from the end"),
        pytest.param((2, 3), ("permute", (0, 2, 1, 3, 4)), 6, id="permute"),
        pytest.param((1, 6), ("transpose", (1, 2)), 0, id="one group"),
        pytest.param((6, 1), ("transpose", (1, 2)), 0, id="one channel a group"),
        pytest.param((2, 3), ("transpose", (3, 4)), 0, id="height and width"),
        pytest.param((2, 3), ("permute", (0, 2, 1, 4, 3)), 0, id="more than the halves"),
    ],
)
def test_a_split_and_merge_shuffles_where_the_halves_change_places(parts, swap, channels):
    assert shuffled(X, parts, swap) == [0, 0, 0, channels]


@pytest.mark.parametrize(
    ("order", "channels"),
    [
        pytest.param([1, 0, 2, 3, 4, 5], 6, id="permutation"),
        pytest.param([0, 1, 2, 3, 4, 5], 0, id="in order"),
        pytest.param([0, 0, 2, 3, 4, 5], 0, id="one twice"),
        pytest.param([1, 0], 0, id="some"),
    ],
)
def test_an_index_shuffles_where_it_is_a_permutation(order, channels):
    index = torch.tensor(order)
    assert ShuffleWatch().see("index", (X, [None, index]), X[:, index]) == channels
    assert ShuffleWatch().see("index_select", (X, 1, index), X[:, index]) == channels


def test_an_index_of_another_dimension_is_no_shuffle():
    index = torch.tensor([1, 0])
    assert ShuffleWatch().see("index_select", (X, 2, index), X[:, :, index]) == 0
    assert ShuffleWatch().see("index", (X, [torch.tensor([0])]), X) == 0


def test_the_operator_of_its_own_shuffles():
    assert ShuffleWatch().see("native_channel_shuffle", (X, 2), X) == 6


def test_an_operation_without_tensors_is_no_shuffle():
    assert ShuffleWatch().see("arange", (), X) == 0
    assert ShuffleWatch().see("full", ([2],), X) == 0
