"""Pruning = importance x schedule x layer rules."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from micronet_cli.compression.effective_weight import attach_mask, effective_weight, original_weight
from micronet_cli.compression.targets import LayerRule, match_layers
from micronet_cli.functional.pruning import magnitude, shrink_mask
from micronet_cli.functional.schedules import AGP


@dataclass(frozen=True)
class SparsityRule(LayerRule):
    """Final sparsity of the matched layers: a fraction of zeros in [0, 1); null leaves them alone."""

    sparsity: float | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sparsity is not None and not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity={self.sparsity}: a fraction of zeros in [0, 1) is wanted")


@dataclass
class Pruner:
    """Masks that shrink along a schedule.

    Attributes:
        rules: rule name -> layers and their final sparsity.
        schedule: progress in [0, 1] -> fraction of the way from ``initial_sparsity`` to the final one.
        importance: weight -> importance of the same shape, larger = keep.
        initial_sparsity: sparsity at the schedule's beginning, in [0, 1); never more than a rule's final one.
    """

    rules: Mapping[str, SparsityRule]
    schedule: Callable[[float], float] = field(default_factory=AGP)
    importance: Callable[[Tensor], Tensor] = magnitude
    initial_sparsity: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.initial_sparsity < 1:
            raise ValueError(f"initial_sparsity={self.initial_sparsity}: a fraction of zeros in [0, 1) is wanted")
        self._targets: list[tuple[nn.Module, float]] = []
        self._reached: float | None = None

    def attach(self, model: nn.Module) -> None:
        """Give every ruled layer a mask (an inherited one goes on); structure only.

        Raises:
            ValueError: a rule is left with no layer.
        """
        self._targets, self._reached = [], None
        for name, (_, rule) in match_layers(model, self.rules, "prune").items():
            if rule.sparsity:
                layer = model.get_submodule(name)
                attach_mask(layer)
                self._targets.append((layer, rule.sparsity))

    @torch.no_grad()
    def update(self, step: int, total_steps: int) -> bool:
        """Shrink the masks to what the schedule asks at ``step`` of ``total_steps``; True when at the final target."""
        fraction = self.schedule(step / total_steps)
        if fraction != self._reached:
            for layer, final in self._targets:
                weight = effective_weight(layer)
                assert weight is not None
                assert weight.mask is not None
                start = min(self.initial_sparsity, final)
                sparsity = start + (final - start) * fraction
                weight.mask.copy_(shrink_mask(self.importance(original_weight(layer)), weight.mask, sparsity))
            self._reached = fraction
        return fraction >= 1

    def table(self, model: nn.Module) -> dict[str, dict[str, object]]:
        """Layer -> its rule and target, as the run's table shows them."""
        return {
            layer: {"prune_rule": name, "target_sparsity": rule.sparsity or 0.0}
            for layer, (name, rule) in match_layers(model, self.rules, "prune").items()
        }
