"""Grids that weights lie on: found exactly, whatever the scales; floats and constants lie on none."""

import pytest
import torch

from micronet_cli.functional.grids import Grid, find_grid


def integers(bits, rows=8, columns=80):
    torch.manual_seed(0)
    half = 2 ** (bits - 1)
    drawn = torch.randint(-half, half, (rows, columns)).float()
    drawn[:, 0] = -half
    drawn[:, 1] = half - 1
    return drawn


def scales(rows):
    torch.manual_seed(1)
    return torch.rand(rows, 1) + 0.1


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_integers_of_every_width_are_found_plain_and_scaled(bits):
    drawn = integers(bits)
    assert find_grid(drawn) == Grid(bits, scales=1, offset=False)
    assert find_grid(drawn * 0.037) == Grid(bits, scales=1, offset=False)
    assert find_grid(drawn * scales(8)) == Grid(bits, scales=8, offset=False)
    assert find_grid(drawn / scales(8)) == Grid(bits, scales=8, offset=False)


def test_nine_bits_are_floats():
    assert find_grid(integers(9, columns=2000)) is None


def test_a_zero_point_is_stored_where_codes_need_one():
    codes = torch.arange(-3.0, 13.0).repeat(4, 4)
    grid = find_grid(codes * scales(4))
    assert grid == Grid(bits=4, scales=4, offset=True)
    assert grid.scale_bits == 4 * (32 + 4)
    assert find_grid(codes + 3) == Grid(bits=4, scales=1, offset=False)


def test_two_values_are_one_bit_and_odd_levels_need_no_zero():
    signs = integers(4).sign() + (integers(4) == 0).float()
    assert find_grid(signs * scales(8)) == Grid(bits=1, scales=8, offset=False)
    odd = 2 * integers(2) + 1
    assert odd.unique().tolist() == [-3, -1, 1, 3]
    assert find_grid(odd * scales(8)) == Grid(bits=2, scales=8, offset=False)


def test_scales_of_channels_are_read_though_they_share_a_step():
    powers = torch.tensor([[1.0], [2.0], [4.0], [8.0]]).repeat(2, 1)
    assert find_grid(integers(4) * powers) == Grid(bits=4, scales=8, offset=False)


def test_zeros_of_a_mask_show_no_grid():
    weights = torch.zeros(8, 80)
    weights[:, ::2] = integers(4)[:, ::2]
    assert find_grid(weights).bits == 4
    weights[1:] = 0
    weights[0, 8:] = 0
    assert find_grid(weights) is None


def test_one_value_that_is_off_makes_floats():
    weights = integers(4) * scales(8)
    weights[5, 40] *= 1 + 1e-5
    assert find_grid(weights) is None


@pytest.mark.parametrize(
    "weights",
    [
        torch.randn(64, 9),
        torch.rand(8, 3000),
        torch.ones(64, 9),
        torch.zeros(64, 9),
        torch.full((64, 9), -0.1),
        torch.ones(64, 9) * scales(64),
        torch.randn(512, 1),
        torch.randn(512, 2),
        torch.tensor([0.3, 1.0, 2.71828]).repeat(8, 100),
        torch.tensor([[1.0, float("nan")], [float("inf"), 1.0]]).repeat(1, 100),
        torch.empty(8, 64, device="meta"),
        integers(4).bfloat16(),
    ],
    ids=[
        "normal", "uniform", "ones", "zeros", "constant", "constant channels", "a value a channel",
        "two values a channel", "three values", "not finite", "no values", "half precision",
    ],
)  # fmt: skip
def test_floats_and_constants_lie_on_no_grid(weights):
    assert find_grid(weights) is None


def test_few_values_show_a_grid_only_where_rounding_is_seen():
    few = torch.arange(-8.0, 8.0)[None]
    assert find_grid(few) is None
    assert find_grid(few, rounded=True) == Grid(bits=4, scales=1, offset=False)
