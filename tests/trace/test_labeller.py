"""Labels go through operations; what reads them in another way fixes them. More operations are in ``test_links``."""

import torch

from micronet_cli.trace.channel_labels import FIXED
from micronet_cli.trace.labeller import Labeller


def labelled(labeller, count=3):
    x = torch.rand(1, count, 2, 2)
    labeller.label(x, labeller.ties.new(count), 1)
    return x


def test_labels_of_a_result_are_those_of_its_operand():
    with Labeller() as labeller:
        out = labelled(labeller).relu().permute(0, 2, 3, 1)
    assert labeller.labels_of(out).tolist() == [[[[1, 2, 3]]]]
    assert labeller.labels_of(torch.rand(2)) is None


def test_an_operation_of_another_kind_fixes_what_it_reads():
    with Labeller() as labeller:
        out = torch.cumsum(labelled(labeller), 1)
    assert labeller.labels_of(out).tolist() == [[[[FIXED]]]]
    assert labeller.ties.classes().tolist() == [FIXED] * 4


def test_nothing_is_followed_while_paused():
    with Labeller() as labeller:
        x = labelled(labeller)
        labeller.paused = True
        out = torch.cumsum(x, 1)
    assert labeller.labels_of(out) is None
    assert labeller.ties.classes().tolist() == [FIXED, 1, 2, 3]


def test_labels_end_with_their_tensors():
    with Labeller() as labeller:
        x = labelled(labeller)
        del x
        again = torch.rand(1, 3, 2, 2)
    assert labeller.labels_of(again) is None
