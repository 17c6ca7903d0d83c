"""Learned step sizes: first steps, values and gradients by hand, and the block-wise path."""

import pytest
import torch

from micronet_cli.functional.cache_blocks import BLOCK
from micronet_cli.functional.learned_step import learned_step, lsq_plus_step, lsq_step


def number(value):
    return torch.tensor(float(value))


def test_golden_lsq_start():
    # 2 * mean(1, 3, 8) / sqrt(4); by channel 2 * 2 / 2 and 2 * 8 / 2; a channel of zeros gets 1.
    weight = torch.tensor([[1.0, -3.0], [8.0, 0.0], [0.0, 0.0]])
    assert lsq_step(weight, 4).item() == 4
    assert lsq_step(weight, 4, (1,)).tolist() == [[2], [8], [1]]


def test_golden_lsq_plus_start():
    # Mean 1, deviation 2: max(|1 - 6|, |1 + 6|) / 2^(3-1).
    assert lsq_plus_step(torch.tensor([-1.0, 3.0]), 7).item() == 7 / 4


def test_golden_lsq_values_and_gradients():
    # Step 2, integers -2 .. 1: v = -3, -0.7, 0, 0.3, 5 gives -2, -1, 0, 0, 1.
    x = torch.tensor([-6.0, -1.4, 0.0, 0.6, 10.0], requires_grad=True)
    step = torch.tensor(2.0, requires_grad=True)
    out = learned_step(x, step, number(-2), 3, gradient_scale=0.5)
    assert out.tolist() == [-4, -2, 0, 0, 2]
    out.backward(torch.tensor([1.0, 10.0, 100.0, 1000.0, 10000.0]))
    assert x.grad.tolist() == [0, 10, 100, 1000, 0]
    # -2 clipped; -1 + 0.7 and 0 - 0.3 inside; 1 clipped.
    expected = 0.5 * (-2 * 1 - 0.3 * 10 + 0 * 100 - 0.3 * 1000 + 1 * 10000)
    assert step.grad.item() == pytest.approx(expected, rel=1e-6)


def test_golden_pact_gradient_of_alpha():
    # alpha = 3 * step = 6: values 0, 2, 4, 6; alpha learns from what it clips alone.
    x = torch.tensor([-1.0, 2.9, 7.0, 9.0], requires_grad=True)
    alpha = torch.tensor(6.0, requires_grad=True)
    out = learned_step(x, alpha / 3, number(0), 3, 1.0, residual=False)
    assert out.tolist() == [0, 2, 6, 6]
    out.backward(torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    assert alpha.grad.item() == pytest.approx(1100)
    assert x.grad.tolist() == [0, 10, 0, 0]


def test_golden_lsq_plus_gradients():
    # Step 1, integers -1 .. 2 begin at the offset -1: 5 is clipped to 2, -3 to -1, 0.25 is inside.
    x = torch.tensor([-3.0, 0.25, 5.0], requires_grad=True)
    step, offset = torch.tensor(1.0, requires_grad=True), torch.tensor(-1.0, requires_grad=True)
    out = learned_step(x, step, number(-1), 3, 1.0, offset=offset)
    assert out.tolist() == [-1, 0, 2]
    out.backward(torch.tensor([1.0, 10.0, 100.0]))
    # Codes counted from the offset: 0 clipped, -0.25 inside, 3 clipped.
    assert step.grad.item() == pytest.approx(0 * 1 - 0.25 * 10 + 3 * 100)
    assert offset.grad.item() == pytest.approx(101)
    assert x.grad.tolist() == [0, 10, 0]


def large(seed):
    torch.manual_seed(seed)
    x = torch.randn(8, 16, 72, 72).to(memory_format=torch.channels_last)
    assert x.numel() > 2 * BLOCK
    return x


METHODS = {"LSQ": (True, False), "LSQ+": (True, True), "PACT": (False, False)}


@pytest.mark.parametrize(("residual", "offset"), METHODS.values(), ids=METHODS.keys())
@pytest.mark.parametrize("strided", [True, False])
def test_learned_step_in_blocks_agrees_with_small_tensors(residual, offset, strided):
    x, grad = large(0), large(1)
    if strided:
        grad = grad.contiguous()
    results = []
    for pieces in (1, 16):  # a sixteenth is below a block
        leaf = x.clone().requires_grad_()
        step = torch.tensor(0.3, requires_grad=True)
        beta = torch.tensor(-0.9, requires_grad=True) if offset else None
        parts = [learned_step(part, step, number(-3), 7, 0.1, residual, beta) for part in leaf.tensor_split(pieces, 2)]
        out = torch.cat(parts, 2)
        out.backward(grad)
        results.append([out, leaf.grad, step.grad] + ([beta.grad] if offset else []))
    for found, wanted in zip(*results, strict=True):
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(results[0][0], results[1][0])


def test_lsq_step_of_zeros_and_of_one_element():
    assert lsq_step(torch.zeros(2, 2), 7).item() == 1
    assert lsq_step(torch.tensor([[-4.0]]), 16).item() == 2


def test_lsq_plus_step_by_channel_and_of_zeros():
    # Channel 0: mean 2, deviation 0. Channel 1: mean -1, deviation 2: 7. Channel 2: nothing to go by.
    weight = torch.tensor([[2.0, 2.0], [1.0, -3.0], [0.0, 0.0]])
    assert lsq_plus_step(weight, 7, (1,)).tolist() == [[0.5], [1.75], [1.0]]


def test_learned_step_by_channel_sums_each_channels_gradient():
    x = torch.tensor([[0.25, 9.0], [0.5, -9.0]], requires_grad=True)
    step = torch.tensor([[1.0], [2.0]], requires_grad=True)
    zero_point = torch.tensor([[-2.0], [-2.0]])
    out = learned_step(x, step, zero_point, 3, 1.0)
    assert out.tolist() == [[0, 1], [0, -4]]
    out.sum().backward()
    assert x.grad.tolist() == [[1, 0], [1, 0]]
    # v' - v inside, the end of the range outside: -0.25 + 1 and -0.25 - 2.
    assert step.grad.tolist() == [[0.75], [-2.25]]


@pytest.mark.parametrize("scale", [0.5, torch.tensor(0.5)], ids=["number", "tensor"])
def test_learned_step_scales_the_gradients_of_step_and_offset_alone(scale):
    x = torch.tensor([9.0, 0.25], requires_grad=True)
    step, offset = torch.tensor(1.0, requires_grad=True), torch.tensor(0.0, requires_grad=True)
    learned_step(x, step, number(0), 3, scale, offset=offset).sum().backward()
    assert step.grad.item() == 0.5 * (3 - 0.25)
    assert offset.grad.item() == 0.5
    assert x.grad.tolist() == [0, 1]


def test_learned_step_at_the_ends_of_the_range_passes_no_gradient():
    # Q_N < v < Q_P is strict (equation 5).
    x = torch.tensor([0.0, 3.0, 1.5], requires_grad=True)
    learned_step(x, number(1), number(0), 3, 1.0).sum().backward()
    assert x.grad.tolist() == [0, 0, 1]


def test_learned_step_keeps_zero_whatever_the_offset_is():
    out = learned_step(torch.zeros(3), number(0.7), number(-2), 3, 1.0, offset=number(-1.3))
    assert out.tolist() == [0, 0, 0]
