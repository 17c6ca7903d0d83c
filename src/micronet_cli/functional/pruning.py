"""Importance criteria: which weights matter. Larger importance means keep.

A criterion is a function of the masked weight; an ``Accumulated`` one gathers its scores from gradients while training.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


def magnitude(weight: Tensor) -> Tensor:
    """Importance |w| (Han et al., arXiv 1506.02626): same shape as ``weight``."""
    return weight.abs()


def lamp(weight: Tensor) -> Tensor:
    """LAMP: w[u]^2 / sum of w[v]^2 over v that rank at or above u (Lee et al., arXiv 2010.07611, section 2.1).

    The most important weight of every layer has 1, so that one threshold over all layers empties none. Within a layer
    it ranks like the magnitude. Of equal magnitudes the earlier ranks lower. An all-zero layer has 0 everywhere.

    >>> lamp(torch.tensor([1.0, -2.0, 0.0])).tolist()
    [0.20000000298023224, 1.0, 0.0]
    """
    exact = weight.double()
    squares = exact.square().flatten()
    order = squares.argsort(stable=True)
    ranked = squares[order]
    largest_first = ranked.flip(0)
    at_or_above = largest_first.cumsum(0).flip(0)
    share = ranked / at_or_above
    scores = torch.empty_like(squares)
    scores[order] = torch.where(ranked > 0, share, 0.0)
    dtype = torch.promote_types(weight.dtype, torch.float32)
    shaped = scores.view(weight.shape)
    return shaped.to(dtype)


@dataclass(frozen=True)
class Random:
    """Uniform random importance: the control that a criterion has to beat.

    Attributes:
        seed: same seed, same importance, on any device.
        layer: number of the layer, so that layers of one shape differ.
    """

    seed: int = 0
    layer: int = 0

    def of_layer(self, number: int) -> "Random":
        """The criterion of one layer."""
        return Random(self.seed, number)

    def __call__(self, weight: Tensor) -> Tensor:
        """Uniform in [0, 1), shape as ``weight``."""
        # The generator takes non-negative seeds; a prime keeps (seed, layer) pairs apart.
        pair = self.seed * 1_000_003 + self.layer
        generator = torch.Generator()
        generator.manual_seed(pair % 2**63)
        # Drawn on the CPU, so that every device gets the same numbers.
        drawn = torch.rand(weight.shape, generator=generator)
        return drawn.to(weight.device)


class Accumulated(ABC):
    """A criterion gathered over training steps; its scores begin at 0."""

    @abstractmethod
    def add(self, scores: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        """The scores after one more gradient with respect to ``weight``; all of one shape."""


@dataclass(frozen=True)
class Taylor(Accumulated):
    """First-order Taylor: |w g|, the loss change when w goes (Molchanov et al., arXiv 1611.06440, section 2.2).

    Attributes:
        decay: factor in (0, 1] on the earlier sum at every step; 1 is the plain sum.

    >>> Taylor(decay=0.5).add(torch.tensor([2.0, 0.0]), torch.tensor([3.0, 1.0]), torch.tensor([-1.0, 0.5])).tolist()
    [4.0, 0.5]
    """

    decay: float = 0.99

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay={self.decay}: must be a factor in (0, 1]")

    def add(self, scores: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        """Decay * scores + |w g|."""
        change = weight * gradient
        return scores * self.decay + change.abs()


@dataclass(frozen=True)
class Movement(Accumulated):
    """Movement: -sum of w g; weights that move away from zero stay (Sanh et al., arXiv 2005.07683, section 4).

    >>> Movement().add(torch.zeros(3), torch.tensor([1.0, -1.0, 1.0]), torch.tensor([-2.0, 2.0, 2.0])).tolist()
    [2.0, 2.0, -2.0]
    """

    def add(self, scores: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        """Scores - w g."""
        towards_zero = weight * gradient
        return scores - towards_zero
