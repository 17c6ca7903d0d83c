"""Golden values by hand of the schemes beside the asymmetric range-linear one."""

import pytest
import torch

from micronet_cli.functional.cache_blocks import BLOCK
from micronet_cli.functional.quantization import (
    _FakeQuantize,
    binary,
    dorefa,
    fake_quantize,
    range_symmetric,
    signed_min,
    tensor_range,
    ternary,
)


def number(value):
    return torch.tensor(float(value))


def test_golden_symmetric_range():
    # 3 bits, 8 levels: integers -3 .. 3 over [-6, 6].
    scale, zero_point = range_symmetric(number(-6), number(2), 3)
    assert (scale.item(), zero_point.item()) == (0.5, -3)
    # Unsigned data use all eight: 0 .. 7 over [0, 14].
    scale, zero_point = range_symmetric(number(0), number(14), 3, unsigned=True)
    assert (scale.item(), zero_point.item()) == (0.5, 0)
    assert range_symmetric(number(0), number(0), 3)[0] == 1


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


def large(seed):
    torch.manual_seed(seed)
    x = torch.randn(8, 16, 72, 72).to(memory_format=torch.channels_last)
    assert x.numel() > 2 * BLOCK
    return x


@pytest.mark.parametrize("zero_point", [0, -3])
def test_blocks_compute_what_the_whole_tensor_does(zero_point):
    x, grad = large(0), large(1)
    scale, first = number(5.3), number(zero_point)
    ends = []
    for function in (
        lambda t: fake_quantize(t, scale, first, 7),
        lambda t: _FakeQuantize.apply(t, scale, first, 7, True),
    ):
        leaf = x.clone().requires_grad_()
        out = function(leaf)
        out.backward(grad)
        ends.append((out, leaf.grad))
    assert torch.equal(ends[0][0], ends[1][0])
    assert torch.equal(ends[0][1], ends[1][1])
    assert ends[0][0].stride() == x.stride()


def test_tensor_range_of_any_layout():
    x = large(0)
    for view in (x, x.contiguous(), x[:, ::2], x.flatten(1), x[0, 0, 0, 0]):
        assert tensor_range(view) == (view.min(), view.max())


def test_signed_integers():
    assert [signed_min(largest) for largest in (255, 15, 7, 4, 2)] == [-128, -8, -4, -2, -1]
