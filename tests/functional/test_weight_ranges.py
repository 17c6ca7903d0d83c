"""Ranges of weights: the least error after the gain, and what the gain gives back."""

import torch

from micronet_cli.functional.quantization import fake_quantize, range_linear
from micronet_cli.functional.weight_ranges import gain, least_error


def within(rows, bits):
    """What rounds ``rows`` on range-linear grids."""
    return lambda low, high: fake_quantize(rows, *range_linear(low, high, bits), 2**bits - 1)


def test_the_gain_by_hand():
    rows = torch.tensor([[4.0, 2.0, 0.0], [1.0, -1.0, 2.0], [3.0, 0.0, 4.0]])
    rounded = torch.tensor([[4.0, 0.0, 0.0], [2.0, -2.0, 4.0], [3.0, 0.0, 4.0]])
    assert gain(rows, rounded).tolist() == [[1.25], [0.5], [1]]


def test_rows_that_rounding_takes_away_have_no_gain():
    rows = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    rounded = torch.tensor([[0.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    assert gain(rows, rounded).tolist() == [[1], [1], [1]]


def test_one_large_weight_is_clipped_where_the_others_matter_more():
    """One bit has the levels 0 and high. Fifteen times 1 and a 4: with high 4 the 4 alone is not rounded to 0.

    Then g = 31 / 16 and the error is 15 + (31 / 4 - 4)^2 = 29; with every weight at the same level g w' = 31 / 19 and
    the error is 15 (12 / 19)^2 + (45 / 19)^2 = 11.6. With three times 1 it is the first that is less, 3.6 and 10.5.
    """
    many = torch.tensor([[1.0] * 15 + [4.0]])
    low, high = least_error(many, within(many, 1))
    rounded = within(many, 1)(low, high)
    torch.testing.assert_close(gain(many, rounded) * rounded, torch.full_like(many, 31 / 19))
    few = torch.tensor([[1.0, 1.0, 1.0, 4.0]])
    low, high = least_error(few, within(few, 1))
    assert within(few, 1)(low, high).tolist() == [[0, 0, 0, 4]]


def test_rows_on_their_own_grid_keep_their_range():
    rows = torch.tensor([[-2.0, 0.0, 1.0, 5.0], [0.0, 0.0, 0.0, 0.0]])
    low, high = least_error(rows, within(rows, 3))
    assert (low.tolist(), high.tolist()) == ([[-2], [0]], [[5], [0]])


def test_no_other_share_has_a_smaller_error():
    rows = torch.randn(6, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rounded_within = within(rows, 2)
    own_low, own_high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)

    def error(low, high):
        rounded = rounded_within(low, high)
        return (gain(rows, rounded) * rounded - rows).square().sum(1)

    found = error(*least_error(rows, rounded_within))
    tried = torch.stack([error(own_low * share / 40, own_high * share / 40) for share in range(1, 41)])
    assert torch.equal(found, tried.amin(0))
    assert (found < 0.9 * tried[-1]).any()
