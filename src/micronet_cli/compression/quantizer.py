"""Quantisation-aware training: which layers get which bits."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from micronet_cli.compression.effective_weight import attach_effective_weight
from micronet_cli.compression.fake_quantize import (
    ActivationFakeQuantize,
    WeightFakeQuantize,
    attach_input_fake_quantize,
)
from micronet_cli.compression.targets import LayerRule, match_layers

MAX_BITS = 16


@dataclass(frozen=True)
class BitsRule(LayerRule):
    """Bits of the matched layers' weights and inputs in [1, 16], maybe fractional.

    ``inherit`` (the default) takes the quantiser's own value, null leaves the tensor in float.
    """

    weight_bits: float | str | None = "inherit"
    activation_bits: float | str | None = "inherit"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("weight_bits", "activation_bits"):
            if (bits := getattr(self, name)) != "inherit":
                check_bits(name, bits)


def check_bits(name: str, bits: float | str | None) -> None:
    """Raises ValueError unless ``bits`` is null or a number in [1, 16]."""
    if bits is not None and not (isinstance(bits, int | float) and 1 <= bits <= MAX_BITS):
        raise ValueError(f"{name}={bits}: bits in [1, {MAX_BITS}] or null (float) are wanted")


@dataclass
class Quantizer:
    """Range-linear fake quantisation of weights (per channel) and of layer inputs (per tensor).

    Attributes:
        rules: rule name -> layers, with bits of their own where they differ.
        weight_bits: bits of weights, null: float.
        activation_bits: bits of the input of every matched layer, null: float.
        ema_decay: decay of the activation range's moving average, in [0, 1).
    """

    rules: Mapping[str, BitsRule] = field(default_factory=dict)
    weight_bits: float | None = 4
    activation_bits: float | None = 4
    ema_decay: float = 0.99

    def __post_init__(self) -> None:
        check_bits("weight_bits", self.weight_bits)
        check_bits("activation_bits", self.activation_bits)
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay}: a decay in [0, 1) is wanted")

    def resolve(self, model: nn.Module) -> dict[str, tuple[str, float | None, float | None]]:
        """Layer -> (rule name, weight bits, activation bits), bits None for float.

        Raises:
            ValueError: a rule is left with no layer.
        """

        def own(bits: float | str | None, default: float | None) -> float | None:
            return default if isinstance(bits, str) else bits

        return {
            layer: (name, own(rule.weight_bits, self.weight_bits), own(rule.activation_bits, self.activation_bits))
            for layer, (name, rule) in match_layers(model, self.rules, "quantize").items()
        }

    def attach(self, model: nn.Module) -> None:
        """Give every ruled layer its quantisers, in place of inherited ones; structure only."""
        for name, (_, weight_bits, activation_bits) in self.resolve(model).items():
            layer = model.get_submodule(name)
            attach_effective_weight(layer).fake_quantize = WeightFakeQuantize(weight_bits) if weight_bits else None
            activation = ActivationFakeQuantize(activation_bits, self.ema_decay) if activation_bits else None
            attach_input_fake_quantize(layer, activation)

    def update(self, step: int, total_steps: int) -> bool:
        """Nothing moves: the bits are the final ones from the first step on."""
        return True

    def table(self, model: nn.Module) -> dict[str, dict[str, object]]:
        """Layer -> its rule and target, as the run's table shows them."""
        return {
            layer: {"quantize_rule": name, "weight_bits": weight_bits, "activation_bits": activation_bits}
            for layer, (name, weight_bits, activation_bits) in self.resolve(model).items()
        }
