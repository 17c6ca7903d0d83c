"""Weights that fit an integer accumulator: sums never exceed the limit."""

import pytest
import torch

from micronet_cli.functional.accumulator import accumulator_aware, l1_limit, project_l1, scale_gradient


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


LIMITS = {
    # bits of the accumulator, levels of the input, floor((2^(P-1) - 1) / (levels - 1))
    "one bit holds nothing": (1, 2, 0),
    "127 over one": (8, 2, 127),
    "127 over 15 rounds down": (8, 16, 8),
    "127 over 255 is none": (8, 256, 0),
    "32767 over 255": (16, 256, 128),
}


@pytest.mark.parametrize(("bits", "levels", "limit"), LIMITS.values(), ids=LIMITS.keys())
def test_l1_limit_by_hand(bits, levels, limit):
    assert l1_limit(bits, levels) == limit


@pytest.mark.parametrize("bits", [6, 8, 11])
def test_l1_limit_is_tight(bits):
    largest_input = 15
    limit = l1_limit(bits, largest_input + 1)
    assert limit * largest_input <= 2 ** (bits - 1) - 1 < (limit + 1) * largest_input


PROJECTED = {
    # row, radius, where it lands: max(m - t, 0)
    "fits already": ([1.0, 0.5], 2.0, [1.0, 0.5]),
    "exactly at the radius": ([1.0, 1.0], 2.0, [1.0, 1.0]),
    "t = 1 empties the smaller": ([4.0, 1.0], 3.0, [3.0, 0.0]),
    "equal ones share": ([3.0, 3.0, 3.0], 3.0, [1.0, 1.0, 1.0]),
    "radius 0": ([2.0, 1.0], 0.0, [0.0, 0.0]),
    "all zero": ([0.0, 0.0], 1.0, [0.0, 0.0]),
    "one element": ([5.0], 2.0, [2.0]),
}


@pytest.mark.parametrize(("row", "radius", "projected"), PROJECTED.values(), ids=PROJECTED.keys())
def test_project_l1_by_hand(row, radius, projected):
    assert project_l1(torch.tensor([row]), radius).tolist() == [projected]


def test_project_l1_is_the_nearest_of_many_points():
    generator = torch.Generator().manual_seed(0)
    row = torch.tensor([[3.0, 2.0, 0.5]])
    projected = project_l1(row, 2.5)
    assert projected.sum() == pytest.approx(2.5)
    # Others on the simplex of the same sum.
    shares = torch.rand(500, 3, generator=generator)
    others = 2.5 * shares / shares.sum(1, keepdim=True)
    distances = (others - row).square().sum(1)
    assert (projected - row).square().sum() <= distances.min()


def test_accumulator_aware_raises_equal_fractions_by_index():
    # 2.5 + 2.5 is above 4: both become 2; nothing is left, and at a limit of 5 it fits: one may rise, the first.
    weight, step = torch.tensor([[2.5, -2.5]]), torch.ones(1, 1)
    assert accumulator_aware(weight, step, 7, 4).tolist() == [[2, -2]]
    assert accumulator_aware(weight, step, 7, 5).tolist() == [[3, -2]]
    assert accumulator_aware(weight, step, 7, 6).tolist() == [[3, -3]]


def test_accumulator_aware_clips_to_the_largest_integer_without_gradient():
    weight = torch.tensor([[9.0, 0.2]], requires_grad=True)
    out = accumulator_aware(weight, torch.ones(1, 1), 3, 100)
    assert out.tolist() == [[3, 0]]
    out.sum().backward()
    assert weight.grad.tolist() == [[0, 1]]


def test_accumulator_aware_with_a_limit_of_zero_leaves_nothing():
    weight = torch.tensor([[[1.5], [-0.2]], [[0.0], [7.0]]])
    assert not accumulator_aware(weight, torch.ones(2, 1, 1), 7, 0).any()


def test_scale_gradient_changes_the_gradient_alone():
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    out = scale_gradient(x, 0.25)
    assert torch.equal(out, x)
    out.backward(torch.tensor([4.0, 8.0]))
    assert x.grad.tolist() == [1, 2]
