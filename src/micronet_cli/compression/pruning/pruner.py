"""Pruning = importance x schedule x layer rules x granularity."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from micronet_cli.compression.pruning.filter_constants import constants_of, silence
from micronet_cli.compression.pruning.gradient_scores import (
    DENSE,
    SCORES,
    Listening,
    attach_buffer,
    averaged,
)
from micronet_cli.compression.pruning.regrow import Exchange, Regrow
from micronet_cli.compression.pruning.sparsity_rules import SparsityRule, sparsity_table
from micronet_cli.functional.granularity import NM, Element, Filter, Granularity
from micronet_cli.functional.masks import shrink_mask, shrink_masks
from micronet_cli.functional.pruning import Accumulated, magnitude
from micronet_cli.functional.schedules import AGP
from micronet_cli.layers.effective_weight import (
    attach_mask,
    effective_weight,
    incoming_weight,
    is_normed,
    mask_of,
    original_weight,
)
from micronet_cli.layers.rules import as_rules, match_layers


@dataclass
class Pruner:
    """Masks that shrink along a schedule.

    Attributes:
        rules: rule name -> layers and their final sparsity; in Python also as ``{"match": ..., "sparsity": ...}``.
        schedule: progress in [0, 1] -> fraction of the way from ``initial_sparsity`` to the final one.
        importance: masked weight -> importance of the same shape, larger = keep; or a criterion that gradients feed,
            which drops nothing before it has seen one.
        initial_sparsity: sparsity at the schedule's beginning, in [0, 1); never more than a rule's final one.
        scope: ``layer``: each has its own sparsity. ``global``: one threshold over all ruled layers; together they drop
            as many units as their own sparsities ask for.
        granularity: what is dropped as one; sparsity is a fraction of these units.
        regrow: exchange some of the kept units, layer by layer, for better ones; null: masks only shrink.
    """

    rules: Mapping[str, SparsityRule]
    schedule: Callable[[float], float] = field(default_factory=AGP)
    importance: Callable[[Tensor], Tensor] | Accumulated = magnitude
    initial_sparsity: float = 0.0
    scope: Literal["layer", "global"] = "layer"
    granularity: Granularity = field(default_factory=Element)
    regrow: Regrow | None = None

    def __post_init__(self) -> None:
        self.rules = as_rules(self.rules, SparsityRule)
        if not 0 <= self.initial_sparsity < 1:
            raise ValueError(f"initial_sparsity={self.initial_sparsity}: must be a fraction of zeros in [0, 1)")
        if self.scope not in ("layer", "global"):
            raise ValueError(f"scope={self.scope}: must be layer or global")
        if not isinstance(self.granularity, Granularity):
            raise ValueError(f"granularity={self.granularity}: must be one of micronet_cli.functional.granularity")
        for name in ("importance", "schedule"):
            given = getattr(self, name)
            if isinstance(given, type):
                raise ValueError(f"{name}={given.__name__}: a class must be given as {name}._target_")
        most = self.granularity.max_sparsity
        for name, rule in self.rules.items():
            if rule.sparsity and rule.sparsity > most:
                raise ValueError(
                    f"rules.{name}.sparsity={rule.sparsity}: must be at most {most} for {self.granularity}"
                )
        self._check_regrow()
        self._targets: list[tuple[nn.Module, float]] = []
        self._reached: float | None = None
        self._step = 0
        self._listening: Listening | None = None
        self._exchange: Exchange | None = None
        self._shifts: list[tuple[nn.Module, list[nn.Parameter]]] = []

    def _check_regrow(self) -> None:
        if self.regrow is None:
            return
        # N:M has its own floor of kept weights; scores that gradients feed say nothing about a weight that is zero.
        if isinstance(self.granularity, NM) or isinstance(self.importance, Accumulated):
            raise ValueError(
                f"regrow={self.regrow}: needs an importance that is a function of the weights, and units other than N:M"
            )

    @property
    def reads_gradients(self) -> bool:
        """Whether gradients of several steps are added up, so that all must have one scale."""
        return isinstance(self.importance, Accumulated) or self.regrow is not None

    def attach(self, model: nn.Module) -> None:
        """Give every ruled layer a mask (an inherited one goes on); structure only.

        Raises:
            ValueError: a rule is left with no layer, or a layer does not have the granularity's units.
        """
        self._targets = []
        self._reached = None
        self._step = 0
        self._listening = None
        self._exchange = None
        if self.regrow is not None:
            self._exchange = Exchange(self.regrow, self.granularity)
        for name, (rule_name, rule) in match_layers(model, self.rules, "prune").items():
            if not rule.sparsity:
                continue
            layer = model.get_submodule(name)
            self._attach_to(layer, f"prune.rules.{rule_name}: {name}")
            self._targets.append((layer, rule.sparsity))
        self._listening = self._listener()
        self._shifts = []
        if isinstance(self.granularity, Filter):
            layers = [layer for layer, _ in self._targets]
            self._shifts = constants_of(layers, model)

    def _attach_to(self, layer: nn.Module, named: str) -> None:
        """Give a layer its mask and what else this pruner keeps there.

        Args:
            layer: the layer.
            named: its rule and name, which mistakes begin with.

        Raises:
            ValueError: it cannot be pruned so.
        """
        inputs = original_weight(layer).shape[1]
        multiple = self.granularity.input_multiple
        if inputs % multiple != 0:
            raise ValueError(
                f"{named} has an input dimension of {inputs}, {self.granularity} needs "
                f"a multiple of {multiple}; a later rule with sparsity=null leaves it alone"
            )
        try:
            attach_mask(layer)
        except ValueError as error:
            raise ValueError(f"{named}: {error}") from None
        if isinstance(self.importance, Accumulated):
            attach_buffer(layer, SCORES)
        if self.regrow is None:
            return
        if is_normed(layer):
            raise ValueError(
                f"{named}: a norm makes its weight, and what grows back would not "
                "begin at zero; prune.regrow=null keeps to masks that shrink"
            )
        attach_buffer(layer, DENSE)

    @torch.no_grad()
    def update(self, step: int, total_steps: int) -> bool:
        """Shrink the masks to what the schedule asks at ``step`` of ``total_steps``; True when at the final target."""
        if step < self._step:
            self._reached = None
            self._stop_listening()
        self._step = step
        fraction = self.schedule(step / total_steps)
        # At the end masks reach their target even if no gradient has arrived to rank the weights by.
        if fraction != self._reached and (step == total_steps or self._has_scores()):
            self._shrink(fraction)
            self._reached = fraction
        for layer, shifts in self._shifts:
            by_channel = mask_of(layer).flatten(1)
            kept_channels = by_channel.any(1)
            silence(shifts, kept_channels)
        if self._exchange is not None:
            layers = [layer for layer, _ in self._targets]
            self._exchange.update(layers, self._importance, step, total_steps)
        settled = fraction >= 1 and self._reached == fraction
        if settled:
            self._stop_listening()
        elif self._listening is not None:
            self._listening.start()
        return settled

    def table(self, model: nn.Module) -> dict[str, dict[str, object]]:
        """Layer -> its rule and target, as the run's table shows them."""
        return sparsity_table(model, self.rules)

    def _shrink(self, fraction: float) -> None:
        """Shrink the masks to ``fraction`` of the way from the initial to the final sparsity."""
        masks: list[Tensor] = []
        importances: list[Tensor] = []
        sparsities: list[float] = []
        for number, (layer, final) in enumerate(self._targets):
            start = min(self.initial_sparsity, final)
            sparsities.append(start + (final - start) * fraction)
            masks.append(mask_of(layer))
            importances.append(self._importance(number, layer))
        if self.scope == "global" and masks:
            shrunk = shrink_masks(importances, masks, sparsities, self.granularity)
        else:
            shrunk = []
            for importance, mask, sparsity in zip(importances, masks, sparsities, strict=True):
                shrunk.append(shrink_mask(importance, mask, sparsity, self.granularity))
        for mask, smaller in zip(masks, shrunk, strict=True):
            mask.copy_(smaller)

    def _importance(self, number: int, layer: nn.Module) -> Tensor:
        """Importance of the weights of the layer with this number, larger = keep."""
        if isinstance(self.importance, Accumulated) and self._has_scores():
            return averaged(layer, SCORES)
        parts = effective_weight(layer)
        assert parts is not None
        masked = parts.masked(incoming_weight(layer))
        if isinstance(self.importance, Accumulated):
            # Without any gradient (an untrained what-if) the magnitude stands in.
            return magnitude(masked)
        # A criterion may differ from layer to layer: random numbers do.
        of_layer = getattr(self.importance, "of_layer", None)
        criterion = of_layer(number) if of_layer else self.importance
        return criterion(masked)

    def _has_scores(self) -> bool:
        """Whether there is something to rank by."""
        return self._listening is None or self._listening.have_arrived()

    def _listener(self) -> Listening | None:
        """What feeds the criterion, where it gathers gradients."""
        if not isinstance(self.importance, Accumulated):
            return None
        layers = [layer for layer, _ in self._targets]
        return Listening(self.importance, layers)

    def _stop_listening(self) -> None:
        """Once the target is reached nothing is ranked any more."""
        if self._listening is not None:
            self._listening.stop()
