"""Pruning = importance x schedule x layer rules x granularity."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from micronet_cli.compression.pruning.gradient_scores import (
    DENSE,
    SCORES,
    accumulate,
    attach_buffer,
    averaged,
    buffer_of,
)
from micronet_cli.compression.pruning.regrow import Exchange, Regrow
from micronet_cli.functional.granularity import NM, Element, Filter, Granularity
from micronet_cli.functional.pruning import Accumulated, magnitude, shrink_masks
from micronet_cli.functional.schedules import AGP
from micronet_cli.layers.effective_weight import attach_mask, effective_weight, original_weight
from micronet_cli.layers.rules import LayerRule, match_layers
from micronet_cli.trace.batch_norm import batch_norm_pairs


@dataclass(frozen=True)
class SparsityRule(LayerRule):
    """Final sparsity of the matched layers: a fraction of zeros in [0, 1); null leaves them alone."""

    sparsity: float | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sparsity is not None and not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity={self.sparsity}: a fraction of zeros in [0, 1) is wanted")


def sparsity_table(model: nn.Module, rules: Mapping[str, SparsityRule]) -> dict[str, dict[str, object]]:
    """Layer -> its rule and target, as the run's table shows them."""
    return {
        layer: {"prune_rule": name, "target_sparsity": rule.sparsity or 0.0}
        for layer, (name, rule) in match_layers(model, rules, "prune").items()
    }


@dataclass
class Pruner:
    """Masks that shrink along a schedule.

    Attributes:
        rules: rule name -> layers and their final sparsity.
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
        if not 0 <= self.initial_sparsity < 1:
            raise ValueError(f"initial_sparsity={self.initial_sparsity}: a fraction of zeros in [0, 1) is wanted")
        if self.scope not in ("layer", "global"):
            raise ValueError(f"scope={self.scope}: layer or global is wanted")
        if not isinstance(self.granularity, Granularity):
            raise ValueError(f"granularity={self.granularity}: one of micronet_cli.functional.granularity is wanted")
        for name in ("importance", "schedule"):
            if isinstance(given := getattr(self, name), type):
                raise ValueError(f"{name}={given.__name__}: a class is wanted as {name}._target_")
        most = self.granularity.max_sparsity
        for name, rule in self.rules.items():
            if rule.sparsity and rule.sparsity > most:
                raise ValueError(
                    f"rules.{name}.sparsity={rule.sparsity}: at most {most} is wanted of {self.granularity}"
                )
        if self.regrow is not None and (isinstance(self.granularity, NM) or isinstance(self.importance, Accumulated)):
            raise ValueError(
                f"regrow={self.regrow}: an importance of the weights, and units other than N:M, are wanted"
            )
        self._targets: list[tuple[nn.Module, float]] = []
        self._reached: float | None = None
        self._listening: list[RemovableHandle] | None = None
        self._exchange: Exchange | None = None
        self._norms: list[tuple[nn.Module, nn.Module]] = []

    @property
    def reads_gradients(self) -> bool:
        """Whether gradients of several steps are added up, so that all must have one scale."""
        return isinstance(self.importance, Accumulated) or self.regrow is not None

    def attach(self, model: nn.Module) -> None:
        """Give every ruled layer a mask (an inherited one goes on); structure only.

        Raises:
            ValueError: a rule is left with no layer, or a layer does not have the granularity's units.
        """
        self._targets, self._reached, self._listening = [], None, None
        self._exchange = None if self.regrow is None else Exchange(self.regrow, self.granularity)
        for name, (rule_name, rule) in match_layers(model, self.rules, "prune").items():
            if not rule.sparsity:
                continue
            layer = model.get_submodule(name)
            inputs, multiple = original_weight(layer).shape[1], self.granularity.input_multiple
            if inputs % multiple:
                raise ValueError(
                    f"prune.rules.{rule_name}: {name} has an input dimension of {inputs}, a multiple of {multiple} is "
                    f"wanted of {self.granularity}; a later rule with sparsity=null leaves it alone"
                )
            try:
                attach_mask(layer)
            except ValueError as error:
                raise ValueError(f"prune.rules.{rule_name}: {name}: {error}") from None
            if isinstance(self.importance, Accumulated):
                attach_buffer(layer, SCORES)
            if self.regrow is not None:
                attach_buffer(layer, DENSE)
            self._targets.append((layer, rule.sparsity))
        self._norms = self._batch_norms(model) if isinstance(self.granularity, Filter) else []

    @torch.no_grad()
    def update(self, step: int, total_steps: int) -> bool:
        """Shrink the masks to what the schedule asks at ``step`` of ``total_steps``; True when at the final target."""
        fraction = self.schedule(step / total_steps)
        if fraction != self._reached and (step == total_steps or self._has_scores()):
            self._shrink(fraction)
            self._reached = fraction
        for layer, norm in self._norms:
            silence(norm, _mask(layer).flatten(1).any(1))
        if self._exchange is not None:
            self._exchange.update([layer for layer, _ in self._targets], self._importance, step, total_steps)
        settled = fraction >= 1 and self._reached == fraction
        self._listen(not settled)
        return settled

    def table(self, model: nn.Module) -> dict[str, dict[str, object]]:
        """Layer -> its rule and target, as the run's table shows them."""
        return sparsity_table(model, self.rules)

    def _batch_norms(self, model: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
        """Pruned layers with the BatchNorms that normalise them."""
        shape = (getattr(model, "pretrained_cfg", None) or {}).get("input_size")
        if shape is None:
            return []
        pruned = {layer for layer, _ in self._targets}
        pairs = batch_norm_pairs(model, shape)
        named = [(model.get_submodule(layer), model.get_submodule(norm)) for norm, layer in pairs.items()]
        return [(layer, norm) for layer, norm in named if layer in pruned]

    def _shrink(self, fraction: float) -> None:
        masks = [_mask(layer) for layer, _ in self._targets]
        sparsities = []
        for _, final in self._targets:
            start = min(self.initial_sparsity, final)
            sparsities.append(start + (final - start) * fraction)
        importances = [self._importance(number, layer) for number, (layer, _) in enumerate(self._targets)]
        groups = [list(range(len(masks)))] if self.scope == "global" and masks else [[i] for i in range(len(masks))]
        for group in groups:
            found = shrink_masks(
                [importances[i] for i in group], [masks[i] for i in group], [sparsities[i] for i in group],
                self.granularity,
            )  # fmt: skip
            for i, mask in zip(group, found, strict=True):
                masks[i].copy_(mask)

    def _importance(self, number: int, layer: nn.Module) -> Tensor:
        if isinstance(self.importance, Accumulated):
            # Without any gradient (an untrained what-if) the magnitude stands in.
            return averaged(layer, SCORES) if self._has_scores() else magnitude(original_weight(layer) * _mask(layer))
        of_layer = getattr(self.importance, "of_layer", None)
        criterion = of_layer(number) if of_layer else self.importance
        return criterion(original_weight(layer) * _mask(layer))

    def _has_scores(self) -> bool:
        """Whether there is something to rank by: gradients come with the first step."""
        if not isinstance(self.importance, Accumulated):
            return True
        return any(bool(buffer_of(layer, SCORES).any()) for layer, _ in self._targets)

    def _listen(self, wanted: bool) -> None:
        """Let gradients feed the criterion, from the first update until the target is reached."""
        if not isinstance(self.importance, Accumulated) or wanted == (self._listening is not None):
            return
        if wanted:
            handles = [accumulate(layer, self.importance) for layer, _ in self._targets]
            self._listening = [handle for handle in handles if handle is not None]
        else:
            for handle in self._listening or []:
                handle.remove()
            self._listening = None


@torch.no_grad()
def silence(norm: nn.Module, kept: Tensor) -> None:
    """Scale and shift 0 for the channels that are not ``kept`` (bool ``[C]``).

    A dropped filter leaves BatchNorm's shift behind, a constant that the next layer would have to go on adding up.
    Zeroed before every step, while training can still make up for it, the channel is exactly zero and can be taken
    out without changing anything, which zero padding prevents for a constant.
    """
    for tensor in (norm.weight, norm.bias):
        if tensor is not None:
            tensor.mul_(kept)


def _mask(layer: nn.Module) -> Tensor:
    weight = effective_weight(layer)
    assert weight is not None
    assert weight.mask is not None
    return weight.mask
