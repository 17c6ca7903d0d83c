"""Coins: their share, what they are drawn by, and both ends."""

import pytest
import torch

from micronet_cli.functional.coins import coins


def tossed(probability, shape=(64, 1001), seed=0):
    return coins(shape, probability, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.5, 1.0])
def test_their_share_is_the_probability(probability):
    made = tossed(probability)
    assert made.shape == (64, 1001)
    assert set(made.unique().tolist()) <= {0.0, 1.0}
    assert float(made.mean()) == pytest.approx(probability, abs=0.01)


def test_each_byte_of_a_random_number_is_fair():
    share = tossed(0.5, (10_000, 8)).mean(0)
    assert share.tolist() == pytest.approx([0.5] * 8, abs=0.02)


def test_they_follow_from_the_generator():
    assert torch.equal(tossed(0.5), tossed(0.5))
    assert not torch.equal(tossed(0.5), tossed(0.5, seed=1))


def test_none_are_tossed_where_there_is_nothing():
    assert tossed(0.5, (0, 3)).shape == (0, 3)
