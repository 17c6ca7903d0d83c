"""Ranges of a batch of activations, by hand."""

import pytest
import torch

from micronet_cli.functional.calibration import SAMPLE, SHRINKS, min_max, mse, percentile, sample
from micronet_cli.functional.quantization import fake_quantize, range_linear


def number(value):
    return torch.tensor(float(value))


def test_golden_ranges_of_a_batch():
    x = torch.cat([torch.linspace(0, 1, 999), torch.tensor([100.0])])
    assert [v.item() for v in min_max(x, 4)] == [0, 100]
    assert percentile(x, 4)[1].item() == pytest.approx(1.0, abs=0.2)
    # Four levels for 0, 1, 2, 3: every value is met, so nothing is cut.
    assert [v.item() for v in mse(torch.tensor([0.0, 1.0, 2.0, 3.0]), 2)] == [0, 3]


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((256, 16, 32, 32), id="many images"),
        pytest.param((64, 32, 64, 64), id="large images"),
        pytest.param((257, 3, 97, 31), id="primes"),
    ],
)
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


ESTIMATES = {"min_max": min_max, "percentile": percentile, "mse": mse}


@pytest.mark.parametrize("estimate", ESTIMATES.values(), ids=ESTIMATES.keys())
@pytest.mark.parametrize("value", [0.0, 2.5, -1.0])
def test_range_of_one_element_lies_between_it_and_zero(estimate, value):
    low, high = estimate(torch.tensor([value]), 8)
    assert low.shape == high.shape == ()
    assert min(value, 0) <= low <= high <= max(value, 0)


@pytest.mark.parametrize("estimate", ESTIMATES.values(), ids=ESTIMATES.keys())
def test_range_of_zeros_is_zero(estimate):
    assert [end.item() for end in estimate(torch.zeros(2, 3), 4)] == [0, 0]


@pytest.mark.parametrize("estimate", ESTIMATES.values(), ids=ESTIMATES.keys())
def test_range_stays_inside_the_values(estimate):
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    low, high = estimate(x, 4)
    assert x.min() <= low <= high <= x.max()


def test_percentile_of_a_ramp_by_hand():
    # 1001 values 0 .. 1000: a thousandth of the way is the value 1 from either end.
    low, high = percentile(torch.arange(1001.0), 8)
    assert low.item() == pytest.approx(1, abs=1e-3)
    assert high.item() == pytest.approx(999, abs=1e-3)


def test_mse_of_equal_errors_takes_the_wider_range():
    # All zero but for nothing to round: every share of the range has the error 0.
    values = torch.tensor([0.0, 8.0])
    low, high = mse(values, 1)
    assert (low.item(), high.item()) == (0, 8)


def test_mse_tries_shares_of_a_fortieth():
    torch.manual_seed(0)
    x = torch.randn(2000)
    low, high = mse(x, 2)
    share = high / x.max()
    assert (share * SHRINKS).item() == pytest.approx(round((share * SHRINKS).item()), abs=1e-4)
    assert (low / x.min()).item() == pytest.approx(share.item())
    assert share < 1


def test_sample_is_everything_up_to_its_limit_and_no_more_beyond():
    exact = torch.arange(SAMPLE)
    assert torch.equal(sample(exact.view(256, -1)), exact.float())
    assert len(sample(torch.zeros(SAMPLE + 1))) <= SAMPLE // 2 + 1


def test_a_sample_does_not_depend_on_the_layout_in_memory():
    x = torch.randn(4, 6, 64, 65, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sample(x.contiguous(memory_format=torch.channels_last)), sample(x))


def test_mse_is_the_best_of_all_ranges_tried_one_by_one():
    x = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    errors = {}
    for fortieths in range(SHRINKS, 0, -1):
        share = fortieths / SHRINKS
        low, high = x.min() * share, x.max() * share
        scale, zero_point = range_linear(low, high, 3)
        rounded = fake_quantize(x, scale, zero_point, 7)
        errors[low.item(), high.item()] = float((rounded - x).square().mean())
    best = min(errors, key=errors.__getitem__)
    assert [end.item() for end in mse(x, 3)] == pytest.approx(best)


def test_sample_is_detached_float32():
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    found = sample(x)
    assert found.dtype == torch.float32
    assert not found.requires_grad
