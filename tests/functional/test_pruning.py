"""Importance criteria by hand: ties, zeros, one element."""

import pytest
import torch

from micronet_cli.functional.masks import shrink_mask
from micronet_cli.functional.pruning import Movement, Random, Taylor, lamp, magnitude


def test_magnitude_is_absolute():
    assert magnitude(torch.tensor([-2.0, 1.0])).tolist() == [2, 1]


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


def test_lamp_of_half_precision_has_scores_in_float32():
    assert lamp(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float32
    assert lamp(torch.ones(2, dtype=torch.float64)).dtype == torch.float64
