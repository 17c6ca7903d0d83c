"""AdaRound: which weights to round up is learned (Nagel et al., arXiv 2004.10568)."""

import math

import torch
from torch import Tensor

# How far the sigmoid is stretched beyond 1 and 0.
ZETA = 1.1
GAMMA = -0.1


def rectified_sigmoid(variables: Tensor) -> Tensor:
    """h(V) = clip(sigmoid(V) (zeta - gamma) + gamma, 0, 1) (equation 23): the part of a step above the floor.

    >>> rectified_sigmoid(torch.tensor([0.0, 9.0, -9.0]))
    tensor([0.5000, 1.0000, 0.0000])
    """
    probability = torch.sigmoid(variables)
    stretched = probability * (ZETA - GAMMA) + GAMMA
    return stretched.clamp(0, 1)


def inverse_rectified_sigmoid(fraction: Tensor) -> Tensor:
    """V with h(V) = ``fraction`` in [0, 1]: where learning starts, the network as it was in float."""
    probability = (fraction - GAMMA) / (ZETA - GAMMA)
    return torch.logit(probability)


def rounding_regularizer(fraction: Tensor, beta: float) -> Tensor:
    """f_reg = sum of 1 - |2 h - 1|^beta (equation 24), 0-dim: 0 where every h is 0 or 1.

    >>> rounding_regularizer(torch.tensor([0.0, 0.5, 0.75, 1.0]), 2)
    tensor(1.7500)
    """
    from_the_middle = 2 * fraction - 1
    decided = from_the_middle.abs()
    undecided = 1 - decided.pow(beta)
    return undecided.sum()


def annealed_beta(
    progress: float,
    warmup: float = 0.2,
    start: float = 20.0,
    end: float = 2.0,
) -> float | None:
    """Beta falls from ``start`` to ``end`` by half a cosine once ``warmup`` is over; None before: no regulariser.

    A high beta lets the h near 0.5 move freely, a low one pushes them to 0 or 1.

    >>> annealed_beta(0.1), annealed_beta(0.2), annealed_beta(0.6), annealed_beta(1.0)
    (None, 20.0, 11.0, 2.0)
    """
    if progress < warmup:
        return None
    angle = math.pi * (progress - warmup) / (1 - warmup)
    cosine = 1 + math.cos(angle)
    return end + (start - end) * cosine / 2
