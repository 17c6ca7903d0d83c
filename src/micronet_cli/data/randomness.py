"""Random choices that follow from a position: any batch of any epoch can be made again, whatever was drawn before."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# Where a random choice is made: (seed, epoch, ...).
Position = tuple[int, ...]


def rng_at(*position: int) -> np.random.Generator:
    """A generator of its own for (seed, epoch, ...)."""
    return np.random.default_rng(position)


def seed_global_rng(*position: int) -> None:
    """Set the global generators, which timm's transforms draw from, by the position."""
    seed = int(np.random.SeedSequence(position).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would visit every device as well


@contextmanager
def global_rng_at(*position: int) -> Iterator[None]:
    """The global generators set by the position for the time of the block."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed_global_rng(*position)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
