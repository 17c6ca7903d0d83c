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
from micronet_cli.functional.pruning import regrow_mask
from micronet_cli.layers.effective_weight import effective_weight, original_weight


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
        for name, value, fits in (
            ("fraction", self.fraction, 0 < self.fraction <= 1),
            ("interval", self.interval, 0 < self.interval < 1),
            ("end", self.end, 0 < self.end <= 1),
        ):
            if not fits:
                raise ValueError(f"{name}={value}: above 0 and at most 1 is wanted (interval: below 1)")

    def amount(self, progress: float) -> float:
        """Fraction of the kept units that is exchanged at ``progress``."""
        return 0.0 if progress >= self.end else self.fraction / 2 * (1 + math.cos(math.pi * progress / self.end))

    def due(self, step: int, total_steps: int) -> bool:
        """Whether an exchange is due before ``step``: the first of an interval, not the first of the run."""
        # The small shift keeps 0.3 // 0.1 from being 2.
        interval, before = ((s / total_steps + 1e-9) // self.interval for s in (step, step - 1))
        return step > 0 and interval != before and step / total_steps < self.end


class Exchange:
    """The exchanges of one run.

    The gradient at the zeros is watched for the one step before an exchange; it is in a buffer, so that a run that
    stops in between goes on alike.
    """

    def __init__(self, settings: Regrow, granularity: Granularity) -> None:
        self.settings, self.granularity = settings, granularity
        self.step: int | None = None
        self.watching: list[RemovableHandle] = []

    def update(
        self,
        layers: Sequence[nn.Module],
        importance: Callable[[int, nn.Module], Tensor],
        step: int,
        total_steps: int,
    ) -> None:
        """Exchange where it is due at ``step``, watch where it is due at the next; once a step.

        Raises:
            UserError: no gradient came.
        """
        if step == self.step:
            return
        self.step = step
        watched = bool(self.watching)
        for handle in self.watching:
            handle.remove()
        self.watching = []
        if self.settings.due(step, total_steps) and self._seen(layers, watched):
            amount = self.settings.amount(step / total_steps)
            for number, layer in enumerate(layers):
                self._exchange(layer, importance(number, layer), amount)
        if self.settings.due(step + 1, total_steps):
            for layer in layers:
                buffer_of(layer, DENSE).zero_()
            self.watching = [watch_dense_gradient(layer) for layer in layers]

    def _seen(self, layers: Sequence[nn.Module], watched: bool) -> bool:
        seen = any(bool(buffer_of(layer, DENSE).any()) for layer in layers)
        if watched and not seen:
            raise UserError("prune.regrow: no gradient reached the pruned weights; it wants trainer.compile=false")
        return seen

    def _exchange(self, layer: nn.Module, importance: Tensor, amount: float) -> None:
        weight = effective_weight(layer)
        assert weight is not None
        assert weight.mask is not None
        mask = regrow_mask(importance, averaged(layer, DENSE), weight.mask, amount, self.granularity)
        with torch.no_grad():
            original_weight(layer).masked_fill_(mask & ~weight.mask, 0.0)
        weight.mask.copy_(mask)
