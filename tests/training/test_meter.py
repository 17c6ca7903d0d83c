"""Means over a training interval, by hand."""

import torch

from micronet_cli.training.meter import Meter


def test_means_weigh_batches_by_their_images():
    meter = Meter()
    meter.add(torch.tensor(1.0), torch.eye(3), torch.tensor([0, 1, 2]))
    meter.add(torch.tensor(5.0), torch.eye(3)[:1], torch.tensor([2]))
    figures = meter.take()
    assert figures["loss"] == 2.0
    assert figures["top1"] == 75.0
    assert figures["images_per_second"] > 0


def test_a_mixed_label_counts_as_its_likeliest_class():
    meter = Meter()
    meter.add(torch.tensor(0.0), torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[0.4, 0.6], [0.3, 0.7]]))
    assert meter.take()["top1"] == 50.0


def test_tied_logits_count_as_the_first_class():
    meter = Meter()
    meter.add(torch.tensor(0.0), torch.zeros(2, 3), torch.tensor([0, 1]))
    assert meter.take()["top1"] == 50.0


def test_taking_starts_anew_and_an_empty_interval_is_zero():
    meter = Meter()
    meter.add(torch.tensor(3.0), torch.eye(2), torch.tensor([0, 1]))
    meter.take()
    figures = meter.take()
    assert (figures["loss"], figures["top1"]) == (0.0, 0.0)
