import pytest
import torch

from micronet_cli.functional.pruning import magnitude, shrink_mask


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
