"""Exact masks: ties, one threshold over all layers, and what grows back."""

import pytest
import torch

from micronet_cli.functional.granularity import Filter
from micronet_cli.functional.masks import kept_units, regrow_mask, shrink_mask, shrink_masks, smallest


def ones(n):
    return torch.ones(n, dtype=torch.bool)


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


def test_global_golden_one_threshold():
    small, large = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([2.5, 5.0, 6.0, 7.0])
    one, two = shrink_masks([small, large], [ones(4), ones(4)], [0.5, 0.5])
    assert one.tolist() == [False, False, False, True]
    assert two.tolist() == [False, True, True, True]


def test_global_total_is_the_sum_rounded_once():
    importances = [torch.rand(n) for n in (7, 9, 11)]
    masks = shrink_masks(importances, [ones(7), ones(9), ones(11)], [0.35, 0.35, 0.6])
    assert sum(int((~m).sum()) for m in masks) == round(7 * 0.35 + 9 * 0.35 + 11 * 0.6)


def test_global_ties_go_by_layer_then_index():
    one, two = shrink_masks([torch.zeros(3), torch.zeros(3)], [ones(3), ones(3)], [0.5, 0.5])
    assert one.tolist() == [False, False, True]
    assert two.tolist() == [False, True, True]


def test_global_empties_no_layer_unless_the_total_asks_for_it():
    tiny, large = torch.full((4,), 1e-6), torch.ones(4)
    one, two = shrink_masks([tiny, large], [ones(4), ones(4)], [0.75, 0.75])
    assert int(one.sum()) == 1
    assert int(two.sum()) == 1
    masks = shrink_masks([torch.ones(1), torch.ones(1)], [ones(1), ones(1)], [0.9, 0.9])
    assert not torch.cat(masks).any()


def test_global_dropped_stay_dropped():
    inherited = torch.tensor([True, False, False])
    one, two = shrink_masks(
        [torch.tensor([1.0, 9.0, 9.0]), torch.tensor([2.0, 3.0, 4.0])], [inherited, ones(3)], [0.5] * 2
    )
    assert one.tolist() == [True, False, False]
    assert two.tolist() == [False, True, True]


def test_regrow_golden():
    mask = torch.tensor([True, True, True, True, False, False])
    importance = torch.tensor([4.0, 1.0, 2.0, 3.0, 0.0, 0.0])
    # 1 and 2 go; the largest gradients of what is not kept are at 4 and, itself just dropped, at 1
    gradient = torch.tensor([9.0, -5.0, 0.5, 9.0, 6.0, 1.0])
    assert regrow_mask(importance, gradient, mask, 0.5).tolist() == [True, True, False, True, True, False]


def test_regrow_ties_and_zero_gradients_go_by_index():
    mask = torch.tensor([True, True, False, False])
    assert regrow_mask(torch.ones(4), torch.zeros(4), mask, 0.5).tolist() == [False, True, False, True]


NOTHING_TO_EXCHANGE = {
    "all kept": ([True], 1.0),
    "none kept": ([False], 1.0),
    "a fraction of 0": ([True, False], 0.0),
}


@pytest.mark.parametrize(("mask", "fraction"), NOTHING_TO_EXCHANGE.values(), ids=NOTHING_TO_EXCHANGE.keys())
def test_regrow_with_nothing_to_exchange(mask, fraction):
    mask = torch.tensor(mask)
    assert torch.equal(regrow_mask(torch.ones(len(mask)), torch.ones(len(mask)), mask, fraction), mask)


def test_regrow_of_filters():
    mask = torch.tensor([[True, True], [True, True], [False, False]])
    importance = torch.tensor([[5.0, 5.0], [1.0, 1.0], [0.0, 0.0]])
    gradient = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    grown = regrow_mask(importance, gradient, mask, 0.5, Filter())
    assert grown.tolist() == [[True, True], [False, False], [True, True]]


@pytest.mark.parametrize("fraction", [0.1, 0.33, 0.9, 1.0])
def test_regrow_keeps_the_sparsity(fraction):
    torch.manual_seed(0)
    mask = torch.rand(7, 11) > 0.6
    grown = regrow_mask(torch.rand(7, 11), torch.randn(7, 11), mask, fraction)
    assert int(grown.sum()) == int(mask.sum())
    assert not torch.equal(grown, mask)


@pytest.mark.parametrize("count", [0, 1, 7, 30, 63, 64, 65])
def test_smallest_is_what_a_stable_sort_says(count):
    values = torch.randint(0, 5, (64,), generator=torch.Generator().manual_seed(0)).float()
    values[values == 0] = -torch.inf
    wanted = torch.zeros(64, dtype=torch.bool)
    wanted[values.argsort(stable=True)[:count]] = True
    assert torch.equal(smallest(values, count), wanted)


def test_kept_units_by_hand():
    # The number 3 stands for no unit; unit 1 has one element left, unit 2 none.
    numbers = torch.tensor([0, 0, 1, 1, 2, 3])
    mask = torch.tensor([True, True, False, True, False, True])
    assert kept_units(numbers, mask, 3).tolist() == [True, True, False]
