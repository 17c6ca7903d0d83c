import pytest
import torch

from micronet_cli.functional.pruning import magnitude, shrink_mask
from micronet_cli.functional.schedules import AGP, Constant


def ones(n):
    return torch.ones(n, dtype=torch.bool)


def test_magnitude_is_absolute():
    assert magnitude(torch.tensor([-2.0, 1.0])).tolist() == [2, 1]


def test_golden_smallest_go():
    assert shrink_mask(torch.tensor([3.0, 1.0, 2.0, 0.5]), ones(4), 0.5).tolist() == [True, False, True, False]


def test_ties_go_by_index():
    assert shrink_mask(torch.zeros(5), ones(5), 0.4).tolist() == [False, False, True, True, True]


def test_dropped_stay_dropped_however_important():
    mask = torch.tensor([False, True, True, True])
    assert shrink_mask(torch.tensor([9.0, 1.0, 2.0, 3.0]), mask, 0.5).tolist() == [False, False, True, True]


def test_lower_target_changes_nothing():
    mask = torch.tensor([False, True, False, True])
    assert torch.equal(shrink_mask(torch.rand(4), mask, 0.25), mask)


@pytest.mark.parametrize("sparsity", [0.0, 0.123, 0.5, 0.999])
def test_sparsity_is_exact(sparsity):
    mask = shrink_mask(torch.rand(7, 11, 3, 3), ones(7 * 11 * 9).view(7, 11, 3, 3), sparsity)
    assert int((~mask).sum()) == round(mask.numel() * sparsity)


def test_agp_is_cubic_and_ends_where_asked():
    schedule = AGP(begin=0.25, end=0.75)
    assert [schedule(p) for p in (0.0, 0.25, 0.75, 1.0)] == [0.0, 0.0, 1.0, 1.0]
    assert schedule(0.5) == 1 - 0.5**3


def test_interval_gives_stairs():
    schedule = AGP(end=0.5, interval=0.05)
    values = [schedule(step / 1000) for step in range(1001)]
    assert len(set(values)) == 11
    assert values == sorted(values)


@pytest.mark.parametrize("window", [{"begin": 0.5, "end": 0.5}, {"begin": -0.1}, {"end": 1.5}, {"interval": 2}])
def test_impossible_windows_are_refused(window):
    with pytest.raises(ValueError, match="wanted"):
        AGP(**window)


def test_constant_waits():
    assert [Constant(0.5)(p) for p in (0.4, 0.5)] == [0.0, 1.0]
