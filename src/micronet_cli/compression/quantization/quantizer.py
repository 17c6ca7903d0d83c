"""Quantisation-aware training: which layers get which bits, and by which schemes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from micronet_cli.compression.quantization.activation_quantizers import TrackedRange
from micronet_cli.compression.quantization.folding import fold_batch_norms
from micronet_cli.compression.quantization.weight_quantizers import AccumulatorAware, RangeLinear
from micronet_cli.layers.effective_weight import attach_effective_weight, check_zero, original_weight
from micronet_cli.layers.fake_quantize import (
    ActivationFakeQuantize,
    WeightFakeQuantize,
    attach_input_fake_quantize,
    attach_output_fake_quantize,
)
from micronet_cli.layers.rules import LayerRule, match_layers, match_modules, own_shape

MAX_BITS = 16
WeightScheme = Callable[..., WeightFakeQuantize]
ActivationScheme = Callable[..., ActivationFakeQuantize]


@dataclass(frozen=True)
class BitsRule(LayerRule):
    """Bits of the matched layers' weights and inputs in [1, 16], maybe fractional.

    ``inherit`` (the default) takes the quantiser's own value, null leaves the tensor in float.

    Attributes:
        weight, activation: schemes of these layers, null: the quantiser's own.
    """

    weight_bits: float | str | None = "inherit"
    activation_bits: float | str | None = "inherit"
    weight: WeightScheme | None = None
    activation: ActivationScheme | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("weight_bits", "activation_bits"):
            if (bits := getattr(self, name)) != "inherit":
                check_bits(name, bits)


@dataclass(frozen=True)
class OutputRule(LayerRule):
    """Bits of the matched modules' outputs: a block that feeds a residual add, what goes into a pool.

    Attributes:
        activation_bits: in [1, 16]; ``inherit`` takes the quantiser's own value, null leaves the output in float.
        activation: scheme, null: the quantiser's own.
    """

    activation_bits: float | str | None = "inherit"
    activation: ActivationScheme | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation_bits != "inherit":
            check_bits("activation_bits", self.activation_bits)


def check_bits(name: str, bits: float | str | None) -> None:
    """Raises ValueError unless ``bits`` is null or a number in [1, 16]."""
    if bits is not None and not (isinstance(bits, int | float) and 1 <= bits <= MAX_BITS):
        raise ValueError(f"{name}={bits}: bits in [1, {MAX_BITS}] or null (float) are wanted")


@dataclass(frozen=True)
class Target:
    """What one layer gets; bits None for float."""

    rule: str
    weight_bits: float | None
    activation_bits: float | None
    weight: WeightScheme
    activation: ActivationScheme


@dataclass
class Quantizer:
    """Fake quantisation of weights and of layer inputs.

    Attributes:
        rules: rule name -> layers, with bits and schemes of their own where they differ.
        weight_bits: bits of weights, null: float.
        activation_bits: bits of the input of every matched layer, null: float.
        ema_decay: decay of the activation range's moving average, in [0, 1); for ``activation: null``.
        weight: a scheme of ``weight_quantizers``, as ``_target_`` with options or as a dotted path; null: range-linear,
            asymmetric, per channel.
        activation: a scheme of ``activation_quantizers``; null: range-linear over a moving average.
        accumulator_bits: width of the integer accumulator that no layer with a quantised input may overflow (A2Q);
            takes the place of the weight scheme there. Null: any.
        freeze_at: progress in (0, 1] from which tracked activation ranges stay as they are; null: never.
        outputs: rule name -> modules of any kind whose output is quantised too, so that what follows (a residual add, a
            pool) has operands of that width.
        fold_batch_norm: fold BatchNorms into the layers before them first, and train without them.
    """

    rules: Mapping[str, BitsRule] = field(default_factory=dict)
    weight_bits: float | None = 4
    activation_bits: float | None = 4
    ema_decay: float = 0.99
    weight: WeightScheme | None = None
    activation: ActivationScheme | None = None
    freeze_at: float | None = None
    accumulator_bits: int | None = None
    outputs: Mapping[str, OutputRule] = field(default_factory=dict)
    fold_batch_norm: bool = False

    def __post_init__(self) -> None:
        check_bits("weight_bits", self.weight_bits)
        check_bits("activation_bits", self.activation_bits)
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay}: a decay in [0, 1) is wanted")
        if self.freeze_at is not None and not 0 < self.freeze_at <= 1:
            raise ValueError(f"freeze_at={self.freeze_at}: progress in (0, 1] is wanted")
        if not 2 <= (self.accumulator_bits or 2) <= 32:
            raise ValueError(f"accumulator_bits={self.accumulator_bits}: 2 to 32, or null (any), are wanted")
        self._activations: list[ActivationFakeQuantize] = []
        for name, rule in self.rules.items():
            target = self.target(name, rule)
            try:
                make_modules(target, torch.ones(1, 1))
            except ValueError as error:
                raise ValueError(f"rules.{name}.{error}") from None
        for name, output in self.outputs.items():
            try:
                self.output_module(output)
            except ValueError as error:
                raise ValueError(f"outputs.{name}.{error}") from None

    def output_module(self, rule: OutputRule) -> ActivationFakeQuantize | None:
        """The quantiser that a rule puts behind a module."""
        bits = inherited_bits(rule.activation_bits, self.activation_bits)
        return first_scheme(rule.activation, self.activation, TrackedRange(self.ema_decay))(bits) if bits else None

    def target(self, name: str, rule: BitsRule) -> Target:
        """A rule with what it inherits."""
        input_bits = inherited_bits(rule.activation_bits, self.activation_bits)
        weight = first_scheme(rule.weight, self.weight, RangeLinear)
        if self.accumulator_bits is not None and input_bits is not None:
            weight = AccumulatorAware(self.accumulator_bits, input_bits)
        return Target(
            name,
            inherited_bits(rule.weight_bits, self.weight_bits),
            input_bits,
            weight,
            first_scheme(rule.activation, self.activation, TrackedRange(self.ema_decay)),
        )

    def targets(self, model: nn.Module) -> dict[str, Target]:
        """Layer -> what it gets.

        Raises:
            ValueError: a rule is left with no layer.
        """
        found = match_layers(model, self.rules, "quantize")
        return {layer: self.target(name, rule) for layer, (name, rule) in found.items()}

    def resolve(self, model: nn.Module) -> dict[str, tuple[str, float | None, float | None]]:
        """Layer -> (rule name, weight bits, activation bits), bits None for float.

        Raises:
            ValueError: a rule is left with no layer.
        """
        return {name: (t.rule, t.weight_bits, t.activation_bits) for name, t in self.targets(model).items()}

    def attach(self, model: nn.Module) -> None:
        """Give every ruled layer its quantisers, in place of inherited ones.

        Learned steps of weights start from the weights as they are; a checkpoint's values take their place on loading.

        Raises:
            ValueError: a rule is left with no layer, a masked layer would get weights without 0, or a BatchNorm would
                fold into weights that are quantised already.
        """
        self._activations = []
        if self.fold_batch_norm:
            try:
                fold_batch_norms(model, own_shape(model))
            except ValueError as error:
                raise ValueError(f"quantize.fold_batch_norm=true: {error}") from None
        for name, target in self.targets(model).items():
            layer = model.get_submodule(name)
            effective = attach_effective_weight(layer)
            weight = original_weight(layer).detach()
            quantizer, activation = make_modules(target, effective.masked(weight))
            if effective.mask is not None:
                try:
                    check_zero(quantizer)
                except ValueError as error:
                    raise ValueError(f"quantize.weight: {name}: {error}") from None
            effective.fake_quantize = quantizer
            attach_input_fake_quantize(layer, activation)
            self._note(activation, weight.device)
        device = next(model.parameters()).device
        for name, (_, rule) in match_modules(model, self.outputs, "quantize.outputs").items():
            attach_output_fake_quantize(model.get_submodule(name), activation := self.output_module(rule))
            self._note(activation, device)

    def _note(self, activation: ActivationFakeQuantize | None, device: torch.device) -> None:
        if activation is not None:
            self._activations.append(activation.to(device))

    def update(self, step: int, total_steps: int) -> bool:
        """Freeze the ranges when due; the bits are the final ones from the first step on."""
        frozen = self.freeze_at is not None and step >= self.freeze_at * total_steps
        for activation in self._activations:
            activation.frozen = frozen
        return True

    def table(self, model: nn.Module) -> dict[str, dict[str, object]]:
        """Layer -> its rule and target, as the run's table shows them."""
        return {
            layer: {"quantize_rule": name, "weight_bits": weight_bits, "activation_bits": activation_bits}
            for layer, (name, weight_bits, activation_bits) in self.resolve(model).items()
        }


def inherited_bits(bits: float | str | None, default: float | None) -> float | None:
    """A rule's bits, or the quantiser's where the rule says ``inherit``."""
    return default if isinstance(bits, str) else bits


def first_scheme(*choices: Callable | None) -> Callable:
    """The first that is given; a class stands for an instance with its defaults."""
    found = next(choice for choice in choices if choice is not None)
    return found() if isinstance(found, type) else found


def make_modules(
    target: Target, weight: torch.Tensor
) -> tuple[WeightFakeQuantize | None, ActivationFakeQuantize | None]:
    """The quantisers of a layer with this weight."""
    return (
        target.weight(target.weight_bits, weight) if target.weight_bits else None,
        target.activation(target.activation_bits) if target.activation_bits else None,
    )
