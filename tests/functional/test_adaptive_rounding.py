"""AdaRound's equations, by hand."""

import math

import pytest
import torch

from micronet_cli.functional.adaptive_rounding import (
    annealed_beta,
    inverse_rectified_sigmoid,
    rectified_sigmoid,
    rounding_regularizer,
)


def test_rectified_sigmoid_reaches_both_ends():
    # sigmoid(log 3) = 0.75 -> 0.75 * 1.2 - 0.1
    variables = torch.tensor([0.0, math.log(3), -math.log(3), 5.0, -5.0])
    assert rectified_sigmoid(variables).tolist() == pytest.approx([0.5, 0.8, 0.2, 1, 0])


def test_learning_starts_from_the_weight_itself():
    fraction = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])
    assert torch.allclose(rectified_sigmoid(inverse_rectified_sigmoid(fraction)), fraction, atol=1e-6)


def test_regularizer_by_hand():
    fraction = torch.tensor([0.0, 0.5, 0.75, 1.0])
    assert rounding_regularizer(fraction, 2) == 1 + 0.75
    assert rounding_regularizer(fraction, 4) == 1 + (1 - 0.0625)
    assert rounding_regularizer(torch.tensor([0.0, 1.0]), 3) == 0


def test_regularizer_pushes_away_from_the_middle():
    fraction = torch.tensor([0.3, 0.7], requires_grad=True)
    rounding_regularizer(fraction, 2).backward()
    low, high = fraction.grad.tolist()  # d/dh of 1 - (2h - 1)^2 = -4 (2h - 1)
    assert (low, high) == pytest.approx((1.6, -1.6))


def test_beta_falls_from_20_to_2_after_the_warmup():
    assert [annealed_beta(progress) for progress in (0, 0.19)] == [None, None]
    assert [annealed_beta(progress) for progress in (0.2, 0.6, 1)] == [20, 11, 2]
    assert annealed_beta(0, warmup=0) == 20
    assert annealed_beta(0.5, warmup=0, start=8, end=4) == 6
