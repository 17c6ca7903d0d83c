"""What each option of each layer costs, read from the scorer."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from micronet_cli.explore.trial import Trial
from micronet_cli.layers.effective_weight import attach_effective_weight
from micronet_cli.layers.fake_quantize import (
    ActivationFakeQuantize,
    WeightFakeQuantize,
    attach_input_fake_quantize,
)
from micronet_cli.scoring import score_with
from micronet_cli.scoring.charges import Charge
from micronet_cli.scoring.rules import Base, Rules
from micronet_cli.trace.trace import Trace


class Option(NamedTuple):
    """What one layer may get: a sparsity, bits of weights and of inputs; None: left as it is."""

    sparsity: float | None = None
    weight_bits: float | None = None
    activation_bits: float | None = None


AS_IT_IS = Option()


class Prices:
    """Prices of options.

    All layers get an option at once and a layer's charges are its price: there are as many readings as options, not as
    many as options times layers.
    """

    def __init__(self, model: nn.Module, rules: Rules, input_shape: Sequence[int]) -> None:
        self._rules, self._base = rules, rules.base(input_shape)
        whole = score_with(model, rules, input_shape).charges
        self._whole, self._charges = whole, {AS_IT_IS: _by_layer(whole)}
        self._dial = Dial(model)
        self._trace = Trace(self._dial.trial.model, rules.input_shape or input_shape)

    def of(self, layer: str, option: Option, figure: str) -> float:
        """Price of one layer's option in ``score``, ``storage_bytes`` or ``math_ops``."""
        if option not in self._charges:
            self._dial.turn(option)
            self._charges[option] = _by_layer(score_with(self._trace, self._rules).charges)
        return figure_of(self._charges[option].get(layer, []), figure, self._base)

    def rest(self, layers: Iterable[str], figure: str) -> float:
        """Price of all but these layers."""
        layers = set(layers)
        return figure_of([charge for charge in self._whole if charge.layer not in layers], figure, self._base)


class Dial:
    """A copy of a network whose layers all turn to one option; only what comes or goes needs a new trace."""

    def __init__(self, model: nn.Module) -> None:
        self.trial = Trial(model)
        self._parts = []
        for name, layer in self.trial.layers.items():
            effective, own = attach_effective_weight(layer), getattr(layer, "input_fake_quantize", None)
            quantizers = WeightFakeQuantize(8), ActivationFakeQuantize(8)
            self._parts.append((name, layer, effective, (effective.mask, effective.fake_quantize, own), quantizers))

    @torch.no_grad()
    def turn(self, option: Option) -> None:
        """Give every layer the option."""
        for name, layer, effective, (mask, own_weight, own_input), (weight, activation) in self._parts:
            effective.mask = mask if option.sparsity is None else self.trial.mask(name, option.sparsity)
            weight.bits, activation.bits = option.weight_bits or weight.bits, option.activation_bits or activation.bits
            effective.fake_quantize = own_weight if option.weight_bits is None else weight
            attach_input_fake_quantize(layer, own_input if option.activation_bits is None else activation)


def figure_of(charges: Iterable[Charge], name: str, base: Base) -> float:
    """Sum of charges in ``score``, ``storage_bytes`` or ``math_ops``."""
    charges = list(charges)
    bits, ops = (math.fsum(getattr(charge, key) for charge in charges) for key in ("storage_bits", "math_ops"))
    return {"score": bits / 32 / base.params + ops / base.ops, "storage_bytes": bits / 8, "math_ops": ops}[name]


def _by_layer(charges: Iterable[Charge]) -> dict[str, list[Charge]]:
    found: dict[str, list[Charge]] = defaultdict(list)
    for charge in charges:
        found[charge.layer].append(charge)
    return found
