"""Importance criteria and exact masks: goldens, ties, and what one threshold over all layers does."""

import pytest
import torch

from micronet_cli.functional.granularity import Filter
from micronet_cli.functional.pruning import (
    Movement,
    Random,
    Taylor,
    kept_units,
    lamp,
    magnitude,
    regrow_mask,
    shrink_mask,
    shrink_masks,
    smallest,
)


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


def test_lamp_golden():
    # ranked 1, 4, 4, 16: sums from there on 25, 24, 20, 16
    found = lamp(torch.tensor([[2.0, -4.0], [1.0, -2.0]]))
    assert torch.equal(found, torch.tensor([[4 / 24, 1.0], [1 / 25, 4 / 20]]))


def test_lamp_of_equal_weights_rises_with_the_index():
    assert torch.equal(lamp(torch.full((3,), -0.5)), torch.tensor([1 / 3, 1 / 2, 1.0]))


EXTREMES = {"all zero": ([0.0, 0.0], [0.0, 0.0]), "one": ([-3.0], [1.0]), "one zero": ([0.0], [0.0])}


@pytest.mark.parametrize(("weight", "expected"), EXTREMES.values(), ids=EXTREMES.keys())
def test_lamp_of_zeros_and_of_one_element(weight, expected):
    assert lamp(torch.tensor(weight)).tolist() == expected


def test_lamp_ranks_a_layer_like_the_magnitude():
    weight = torch.randn(64, 9, generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(weight, dtype=torch.bool)
    assert torch.equal(shrink_mask(lamp(weight), mask, 0.7), shrink_mask(magnitude(weight), mask, 0.7))


def test_lamp_does_not_depend_on_a_layers_scale():
    weight = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(lamp(weight), lamp(weight * 1e-4))


def test_random_is_reproducible_and_differs_by_seed_and_layer():
    weight = torch.zeros(4, 5)
    one = Random(3).of_layer(1)(weight)
    assert torch.equal(one, Random(3).of_layer(1)(weight + 7))
    assert not torch.equal(one, Random(4).of_layer(1)(weight))
    assert not torch.equal(one, Random(3).of_layer(2)(weight))
    assert one.shape == weight.shape


def test_random_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    Random()(torch.zeros(3))
    assert torch.equal(before, torch.get_rng_state())


def test_taylor_golden():
    weight, gradients = torch.tensor([2.0, -1.0, 0.0]), ([0.5, 3.0, 9.0], [-1.0, 0.0, 9.0])
    for decay, wanted in ((1.0, [3.0, 3.0, 0.0]), (0.5, [2.5, 1.5, 0.0])):
        scores = torch.zeros(3)
        for gradient in gradients:
            scores = Taylor(decay).add(scores, weight, torch.tensor(gradient))
        assert scores.tolist() == wanted


def test_movement_golden():
    scores = torch.zeros(4)
    for gradient in ([-1.0, -1.0, 1.0, 0.0], [-1.0, 2.0, 1.0, 0.0]):
        scores = Movement().add(scores, torch.tensor([1.0, -1.0, 0.5, 3.0]), torch.tensor(gradient))
    # away from zero, back and forth, towards zero, at rest
    assert scores.tolist() == [2.0, 1.0, -1.0, 0.0]


@pytest.mark.parametrize("decay", [0.0, -1.0, 1.1])
def test_impossible_decay_is_refused(decay):
    with pytest.raises(ValueError, match="decay="):
        Taylor(decay)


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


def test_lamp_of_half_precision_has_scores_in_float32():
    assert lamp(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float32
    assert lamp(torch.ones(2, dtype=torch.float64)).dtype == torch.float64


def test_kept_units_by_hand():
    # The number 3 stands for no unit; unit 1 has one element left, unit 2 none.
    numbers = torch.tensor([0, 0, 1, 1, 2, 3])
    mask = torch.tensor([True, True, False, True, False, True])
    assert kept_units(numbers, mask, 3).tolist() == [True, True, False]
