"""What each option of each layer costs, read from the scorer."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from micronet_cli.explore.trial import Trial
from micronet_cli.layers.effective_weight import EffectiveWeight, attach_effective_weight
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
        self._rules = rules
        self._base = rules.base(input_shape)
        self._whole = score_with(model, rules, input_shape).charges
        self._charges = {AS_IT_IS: _by_layer(self._whole)}
        self._dial = Dial(model)
        shape = rules.input_shape or input_shape
        self._trace = Trace(self._dial.trial.model, shape)

    def of(self, layer: str, option: Option, figure: str) -> float:
        """Price of one layer's option in ``score``, ``storage_bytes`` or ``math_ops``."""
        if option not in self._charges:
            self._charges[option] = self._read(option)
        charges = self._charges[option].get(layer, [])
        return figure_of(charges, figure, self._base)

    def rest(self, layers: Iterable[str], figure: str) -> float:
        """Price of all but these layers."""
        left_out = set(layers)
        charges = [charge for charge in self._whole if charge.layer not in left_out]
        return figure_of(charges, figure, self._base)

    def _read(self, option: Option) -> dict[str, list[Charge]]:
        self._dial.turn(option)
        report = score_with(self._trace, self._rules)
        return _by_layer(report.charges)


@dataclass
class _Layer:
    """A layer that is turned from option to option.

    Attributes:
        name: its name in the network.
        module: the layer.
        effective: what its weight is parametrized by.
        own_mask, own_weight_quantizer, own_input_quantizer: what it came with.
        weight_quantizer, input_quantizer: what it gets at an option's bits.
    """

    name: str
    module: nn.Module
    effective: EffectiveWeight
    own_mask: Tensor | None
    own_weight_quantizer: WeightFakeQuantize | None
    own_input_quantizer: ActivationFakeQuantize | None
    weight_quantizer: WeightFakeQuantize
    input_quantizer: ActivationFakeQuantize

    @classmethod
    def of(cls, name: str, module: nn.Module) -> "_Layer":
        """The layer as it is."""
        effective = attach_effective_weight(module)
        return cls(
            name=name,
            module=module,
            effective=effective,
            own_mask=effective.mask,
            own_weight_quantizer=effective.fake_quantize,
            own_input_quantizer=getattr(module, "input_fake_quantize", None),
            weight_quantizer=WeightFakeQuantize(8),
            input_quantizer=ActivationFakeQuantize(8),
        )

    def turn_weight(self, bits: float | None) -> None:
        """Give the weight so many bits; None: as it came."""
        if bits is None:
            self.effective.fake_quantize = self.own_weight_quantizer
            return
        self.weight_quantizer.bits = bits
        self.effective.fake_quantize = self.weight_quantizer

    def turn_input(self, bits: float | None) -> None:
        """Give the input so many bits; None: as it came."""
        if bits is None:
            attach_input_fake_quantize(self.module, self.own_input_quantizer)
            return
        self.input_quantizer.bits = bits
        attach_input_fake_quantize(self.module, self.input_quantizer)


class Dial:
    """A copy of a network whose layers all turn to one option; only what comes or goes needs a new trace."""

    def __init__(self, model: nn.Module) -> None:
        self.trial = Trial(model)
        self._layers = [_Layer.of(name, module) for name, module in self.trial.layers.items()]

    @torch.no_grad()
    def turn(self, option: Option) -> None:
        """Give every layer the option."""
        for layer in self._layers:
            if option.sparsity is None:
                layer.effective.mask = layer.own_mask
            else:
                layer.effective.mask = self.trial.mask(layer.name, option.sparsity)
            layer.turn_weight(option.weight_bits)
            layer.turn_input(option.activation_bits)


def figure_of(charges: Sequence[Charge], name: str, base: Base) -> float:
    """Sum of charges in ``score``, ``storage_bytes`` or ``math_ops``."""
    bits = math.fsum(charge.storage_bits for charge in charges)
    ops = math.fsum(charge.math_ops for charge in charges)
    if name == "storage_bytes":
        return bits / 8
    if name == "math_ops":
        return ops
    return bits / 32 / base.params + ops / base.ops


def _by_layer(charges: Iterable[Charge]) -> dict[str, list[Charge]]:
    found: dict[str, list[Charge]] = defaultdict(list)
    for charge in charges:
        found[charge.layer].append(charge)
    return found
