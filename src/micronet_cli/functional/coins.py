"""Many tosses of a coin."""

from collections.abc import Sequence

import torch
from torch import Tensor

SIDES = 256  # values of a byte
SMALLEST = -(2**63)


def coins(shape: Sequence[int], probability: float, generator: torch.Generator) -> Tensor:
    """1 with ``probability``, to a 256th of 1, else 0: float32 of ``shape``, on the CPU.

    A byte decides each, so that one random number of 64 bits is enough for eight: ``bernoulli_`` takes five times as
    long.

    Args:
        shape: of the result.
        probability: in [0, 1].
        generator: on the CPU.

    >>> coins((2, 3), 1.0, torch.Generator())
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """
    count = torch.Size(shape).numel()
    numbers = torch.empty(-(-count // 8), dtype=torch.int64)
    numbers.random_(SMALLEST, None, generator=generator)
    sides = numbers.view(torch.uint8)[:count].view(*shape)
    winning = round(probability * SIDES)
    if winning == 0:
        return torch.zeros(shape)
    # Not "< winning": 256 is no byte.
    return (sides <= winning - 1).float()
