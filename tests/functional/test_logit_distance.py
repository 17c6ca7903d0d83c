"""Guards the distance of logits from those in float: by hand, and its ends."""

import math

import torch

from micronet_cli.functional.logit_distance import LogitDistance


def test_values_by_hand():
    in_float = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 0.0]])
    logits = torch.tensor([[1.0, 2.0, 0.0], [0.0, 3.0, 1.0]])
    assert LogitDistance.between(in_float, logits) == LogitDistance(error=7.0, signal=14.0, changed=1, images=2)


def test_distances_over_other_images_are_added():
    both = LogitDistance(1.0, 10.0, 1, 2) + LogitDistance(3.0, 30.0, 0, 6)
    assert both == LogitDistance(4.0, 40.0, 1, 8)
    assert both.share_changed == 0.125
    assert both.decibels == 10.0


def test_equal_logits_have_no_error_and_zero_logits_no_signal():
    zeros, ones = torch.zeros(2, 3), torch.ones(2, 3)
    assert LogitDistance.between(ones, ones).decibels == math.inf
    assert LogitDistance.between(zeros, ones).decibels == -math.inf
    assert LogitDistance.between(zeros, zeros).decibels == math.inf
