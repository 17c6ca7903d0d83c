"""Random choices follow from a position, and the global generators are left as they were."""

import random

import numpy as np
import torch

from micronet_cli.data.randomness import global_rng_at, rng_at, seed_global_rng


def drawn() -> tuple[float, float, float]:
    """The next number of each global generator."""
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_a_position_gives_the_same_numbers_again():
    assert rng_at(0, 3, 5).random() == rng_at(0, 3, 5).random()


def test_positions_that_differ_in_one_place_give_other_numbers():
    numbers = {rng_at(*position).random() for position in ((0, 3, 5), (1, 3, 5), (0, 4, 5), (0, 3, 6), (3, 0, 5))}
    assert len(numbers) == 5


def test_the_global_generators_follow_the_position():
    seed_global_rng(7, 1)
    first = drawn()
    drawn()
    seed_global_rng(7, 1)
    assert drawn() == first
    seed_global_rng(7, 2)
    assert all(one != other for one, other in zip(drawn(), first, strict=True))


def test_the_global_generators_are_as_before_after_the_block():
    seed_global_rng(1)
    expected = drawn()
    seed_global_rng(1)
    with global_rng_at(9, 9):
        inside = drawn()
    assert drawn() == expected
    assert inside != expected


def test_an_error_inside_the_block_leaves_the_generators_as_before():
    seed_global_rng(1)
    expected = drawn()
    seed_global_rng(1)
    try:
        with global_rng_at(9):
            drawn()
            raise RuntimeError
    except RuntimeError:
        pass
    assert drawn() == expected
