"""Divergence and the factor of its Hessian, by hand."""

import itertools
import math

import pytest
import torch

from micronet_cli.functional.divergence import divergence, fisher_factor


def test_divergence_of_two_coins():
    # p = (1/2, 1/2), q = (3/4, 1/4): (ln(2/3) + ln 2) / 2.
    logits, changed = torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]])
    assert divergence(logits, changed).item() == pytest.approx(math.log(4 / 3) / 2, abs=1e-6)


def test_divergence_does_not_see_a_shift_and_is_never_negative():
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    assert divergence(logits, logits + 3).abs().max() < 1e-6
    assert divergence(logits, logits + 1e-4 * logits).min() >= 0


def test_fisher_factor_of_a_coin():
    logits = torch.zeros(2, 2)
    factor = fisher_factor(logits, torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
    half = 2**-0.5
    assert torch.allclose(factor, torch.tensor([[0.0, 0.0], [half, -half]]), atol=1e-6)


def test_fisher_factor_squares_to_the_hessian():
    logits = torch.tensor([[0.3, -1.0, 2.0]])
    p = logits.softmax(1)[0]
    signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=3)))
    factors = fisher_factor(logits.expand(8, 3), signs)
    assert torch.allclose(factors.T @ factors / 8, p.diag() - p[:, None] * p, atol=1e-6)


def test_hessian_predicts_a_small_divergence():
    logits, step = torch.tensor([[0.3, -1.0, 2.0]]), torch.tensor([[0.01, 0.02, -0.01]])
    p = logits.softmax(1)[0]
    second_order = (step @ (p.diag() - p[:, None] * p) @ step.T).item() / 2
    assert divergence(logits.double(), (logits + step).double()).item() == pytest.approx(second_order, rel=0.05)
