"""RigL: pruned weights come back where the gradient is largest (Evci et al., arXiv 1911.11134)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from micronet_cli.compression.pruning.gradient_scores import DENSE, averaged, buffer_of, watch_dense_gradient
from micronet_cli.errors import UserError
from micronet_cli.functional.granularity import Granularity
from micronet_cli.functional.masks import regrow_mask
from micronet_cli.layers.effective_weight import effective_weight, mask_of, original_weight


@dataclass(frozen=True)
class Regrow:
    """How much is exchanged, and when: fraction / 2 (1 + cos(pi t / end)) of the kept units (section 3, (2)).

    Attributes:
        fraction: exchanged at the beginning, in (0, 1].
        interval: progress between exchanges, in (0, 1).
        end: progress in (0, 1] from which the masks stay.

    >>> Regrow(0.3, 0.1, 0.8).amount(0.0), round(Regrow(0.3, 0.1, 0.8).amount(0.4), 6), Regrow().amount(1.0)
    (0.3, 0.15, 0.0)
    >>> [step for step in range(11) if Regrow(0.3, 0.2, 0.8).due(step, 10)]
    [2, 4, 6]
    """

    fraction: float = 0.3
    interval: float = 0.02
    end: float = 0.75

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction={self.fraction}: must be in (0, 1]")
        if not 0 < self.interval < 1:
            raise ValueError(f"interval={self.interval}: must be in (0, 1)")
        if not 0 < self.end <= 1:
            raise ValueError(f"end={self.end}: must be in (0, 1]")

    def amount(self, progress: float) -> float:
        """Fraction of the kept units that is exchanged at ``progress``."""
        if progress >= self.end:
            return 0.0
        angle = math.pi * progress / self.end
        return self.fraction / 2 * (1 + math.cos(angle))

    def due(self, step: int, total_steps: int) -> bool:
        """Whether an exchange is due before ``step``: the first of an interval, not the first of the run."""
        if step <= 0 or step / total_steps >= self.end:
            return False
        return self._interval_of(step, total_steps) != self._interval_of(step - 1, total_steps)

    def _interval_of(self, step: int, total_steps: int) -> float:
        """Number of the interval that ``step`` lies in."""
        # The small shift keeps 0.3 // 0.1 from being 2.
        progress = step / total_steps + 1e-9
        return progress // self.interval


class Exchange:
    """The exchanges of one run.

    The gradient at the zeros is watched for the one step before an exchange; it is in a buffer, so that a run that
    stops in between goes on alike.
    """

    def __init__(self, settings: Regrow, granularity: Granularity) -> None:
        self.settings = settings
        self.granularity = granularity
        self.step: int | None = None
        self.watching: list[RemovableHandle] = []

    def update(
        self,
        layers: Sequence[nn.Module],
        importance: Callable[[int, nn.Module], Tensor],
        step: int,
        total_steps: int,
    ) -> None:
        """Exchange where it is due at ``step``, watch where it is due at the next; a repeated step does nothing.

        Args:
            layers: masked layers, each with a ``DENSE`` buffer.
            importance: number and layer -> importance of its weights, larger = keep.
            step: in 0 .. ``total_steps``.
            total_steps: of the run.

        Raises:
            UserError: gradients were watched for, and none arrived.
        """
        if step == self.step:
            return
        has_gone_back = self.step is not None and step < self.step
        self.step = step
        watched = bool(self.watching) and not has_gone_back
        for handle in self.watching:
            handle.remove()
        self.watching = []
        if self.settings.due(step, total_steps) and self._gradients_arrived(layers, watched):
            amount = self.settings.amount(step / total_steps)
            for number, layer in enumerate(layers):
                self._exchange(layer, importance(number, layer), amount)
        if self.settings.due(step + 1, total_steps):
            for layer in layers:
                buffer_of(layer, DENSE).zero_()
            self.watching = [watch_dense_gradient(layer) for layer in layers]

    def _gradients_arrived(self, layers: Sequence[nn.Module], watched: bool) -> bool:
        """Whether any layer has a gradient to grow by; a run that never trained (an untrained what-if) has none."""
        if any(bool(buffer_of(layer, DENSE).any()) for layer in layers):
            return True
        if watched:
            raise UserError("prune.regrow: no gradient reached the pruned weights; it needs trainer.compile=false")
        return False

    def _exchange(self, layer: nn.Module, importance: Tensor, amount: float) -> None:
        mask = mask_of(layer)
        gradient = averaged(layer, DENSE)
        exchanged = regrow_mask(importance, gradient, mask, amount, self.granularity)
        # What comes back begins at zero, not at the value that it had when it went.
        grown = exchanged & ~mask
        begin_at_zero(layer, grown)
        mask.copy_(exchanged)


@torch.no_grad()
def begin_at_zero(layer: nn.Module, grown: Tensor) -> None:
    """Let the weights that are ``grown``, bool of the weight's shape, be zero, behind a standardisation too."""
    weight = effective_weight(layer)
    assert weight is not None
    original = original_weight(layer)
    if weight.standardization is None:
        original.masked_fill_(grown, 0.0)
        return
    # A standardised weight is zero where the original is the mean of its row, which is that of the others then.
    rows = original.flatten(1)
    is_other = ~grown.flatten(1)
    others = is_other.sum(1, keepdim=True)
    sums = (rows * is_other).sum(1, keepdim=True)
    means = sums / others.clamp_min(1)
    begun = torch.where(is_other, rows, means)
    original.copy_(begun.view(original.shape))
