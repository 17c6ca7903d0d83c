"""Weights of two and three levels, and DoReFa's, by hand."""

import pytest
import torch

from micronet_cli.functional.weight_schemes import binary, dorefa, ternary


def test_golden_binary():
    weight = torch.tensor([[1.0, -3.0], [0.0, 0.0], [5.0, 0.0]], requires_grad=True)
    out = binary(weight)
    assert out.tolist() == [[2, -2], [0, 0], [2.5, 2.5]]
    out.sum().backward()
    assert weight.grad.tolist() == [[1, 1], [1, 1], [1, 1]]


def test_golden_ternary():
    # Threshold 0.7 * mean(1, 2, 3, 6) = 2.1: 3 and 6 stay as 4.5.
    weight = torch.tensor([[1.0, -2.0, 3.0, -6.0, 0.0], [0.0] * 5], requires_grad=True)
    out = ternary(weight)
    assert out.tolist() == [[0, 0, 4.5, -4.5, 0], [0] * 5]
    out.sum().backward()
    assert (weight.grad == 1).all()


def test_golden_dorefa():
    weight = torch.tensor([[0.0, 1.0, -2.0]], requires_grad=True)
    out = dorefa(weight)
    # 2 tanh(1) / tanh(2)
    assert out.tolist() == [pytest.approx([0, 2 * 0.7615942 / 0.9640276, -2])]
    out.sum().backward()
    assert weight.grad[0].tolist() == pytest.approx([2 / 0.9640276 * (1 - t**2) for t in (0, 0.7615942, 0.9640276)])
    assert dorefa(torch.zeros(1, 2)).tolist() == [[0, 0]]
