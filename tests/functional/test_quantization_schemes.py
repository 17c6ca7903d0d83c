"""Golden values by hand of the schemes beside the asymmetric range-linear one."""

import pytest
import torch

from micronet_cli.functional.accumulator import accumulator_aware, l1_limit
from micronet_cli.functional.cache_blocks import BLOCK
from micronet_cli.functional.calibration import min_max, mse, percentile, sample
from micronet_cli.functional.learned_step import learned_step, lsq_plus_step, lsq_step
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


def test_golden_ranges_of_a_batch():
    x = torch.cat([torch.linspace(0, 1, 999), torch.tensor([100.0])])
    assert [v.item() for v in min_max(x, 4)] == [0, 100]
    assert percentile(x, 4)[1].item() == pytest.approx(1.0, abs=0.2)
    # Four levels for 0, 1, 2, 3: every value is met, so nothing is cut.
    assert [v.item() for v in mse(torch.tensor([0.0, 1.0, 2.0, 3.0]), 2)] == [0, 3]


@pytest.mark.parametrize("shape", [(256, 16, 32, 32), (64, 32, 64, 64), (257, 3, 97, 31)])
def test_a_sample_meets_every_row_column_and_channel(shape):
    for dim in (1, 2, 3):
        view = [1, 1, 1, 1]
        view[dim] = shape[dim]
        met = sample(torch.arange(shape[dim]).view(view).expand(shape)).unique()
        assert len(met) == shape[dim]


def test_range_of_least_error_beats_the_whole_range():
    torch.manual_seed(0)
    x = torch.randn(5000).square()
    errors = []
    for high in (min_max(x, 3)[1], mse(x, 3)[1]):
        scale, zero_point = 7 / high, number(0)
        errors.append((fake_quantize(x, scale, zero_point, 7) - x).square().mean())
    assert errors[1] < 0.7 * errors[0]


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


@pytest.mark.parametrize(("residual", "offset"), [(True, False), (True, True), (False, False)])
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


def test_tensor_range_of_any_layout():
    x = large(0)
    for view in (x, x.contiguous(), x[:, ::2], x.flatten(1), x[0, 0, 0, 0]):
        assert tensor_range(view) == (view.min(), view.max())


def test_signed_integers():
    assert [signed_min(largest) for largest in (255, 15, 7, 4, 2)] == [-128, -8, -4, -2, -1]


def test_golden_accumulator():
    # Twelve bits hold 2047: 136 times the largest 4-bit input.
    assert l1_limit(12, 16) == 136
    # Channel 0 is 4, -2 and is moved to 2.5, -0.5; the limit of 3 lets the first be raised only. Channel 1 fits.
    weight = torch.tensor([[8.0, -4.0, 0.0], [0.0, 5.9, 0.0], [0.0] * 3], requires_grad=True)
    step = torch.full((3, 1), 2.0, requires_grad=True)
    out = accumulator_aware(weight, step, 7, 3)
    assert out.tolist() == [[6, 0, 0], [0, 6, 0], [0, 0, 0]]
    out.sum().backward()
    assert (weight.grad == 1).all()
    assert step.grad[1].item() == pytest.approx(3 - 2.95)


def test_an_accumulator_that_does_not_bind_changes_nothing():
    torch.manual_seed(0)
    weight, step = torch.randn(8, 20), torch.full((8, 1), 0.3)
    assert torch.equal(accumulator_aware(weight, step, 7, 10**6), (weight / step).round().clamp(-7, 7) * step)


def test_integer_sums_stay_within_the_limit():
    torch.manual_seed(0)
    weight = torch.randn(64, 16, 3, 3)
    for limit in (1, 8, 136):
        integers = accumulator_aware(weight, torch.full((64, 1, 1, 1), 0.125), 7, limit) / 0.125
        sums = integers.abs().sum((1, 2, 3))
        assert (integers == integers.round()).all()
        assert limit - 1 <= sums.max() <= limit
        assert integers.abs().max() <= 7
