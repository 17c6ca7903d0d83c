"""Quantisation-aware training: which layers get which bits, and by which schemes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from micronet_cli.compression.quantization.activation_quantizers import TrackedRange
from micronet_cli.compression.quantization.bits_rules import (
    ActivationScheme,
    BitsRule,
    OutputRule,
    Target,
    WeightScheme,
    check_bits,
    first_scheme,
    inherited_bits,
)
from micronet_cli.compression.quantization.folding import fold_batch_norms
from micronet_cli.compression.quantization.product_operands import attach_operands, products_to_quantize
from micronet_cli.compression.quantization.weight_quantizers import AccumulatorAware, RangeLinear
from micronet_cli.layers.effective_weight import attach_effective_weight, check_zero, incoming_weight
from micronet_cli.layers.fake_quantize import (
    ActivationFakeQuantize,
    attach_input_fake_quantize,
    attach_output_fake_quantize,
)
from micronet_cli.layers.rules import Matches, as_rules, match_layers, match_modules, own_shape
from micronet_cli.trace.computed_products import ComputedProducts

NO_PRODUCTS = ComputedProducts({}, ())
UNRULED = "attention"  # what the tables call products that no rule matches


def all_but_the_stem() -> dict[str, BitsRule]:
    """The rule of the packaged options: every convolution and linear layer but the first."""
    return {"conv": BitsRule("(?!{stem}$).*")}


@dataclass
class Quantizer:
    """Fake quantisation of weights and of layer inputs.

    Attributes:
        rules: rule name -> layers, with bits and schemes of their own where they differ; in Python also as
            ``{"match": ...}``. Not given: every convolution and linear layer but the stem, as in packaged options.
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
        attention: quantise both operands of products of two computed tensors too, with the activation bits and scheme
            of the rule that matches their module, the quantiser's own where none does; attention is unfused for it.
    """

    rules: Mapping[str, BitsRule] = field(default_factory=all_but_the_stem)
    weight_bits: float | None = 4
    activation_bits: float | None = 4
    ema_decay: float = 0.99
    weight: WeightScheme | None = None
    activation: ActivationScheme | None = None
    freeze_at: float | None = None
    accumulator_bits: int | None = None
    outputs: Mapping[str, OutputRule] = field(default_factory=dict)
    fold_batch_norm: bool = False
    attention: bool = False

    def __post_init__(self) -> None:
        self.rules = as_rules(self.rules, BitsRule)
        self.outputs = as_rules(self.outputs, OutputRule)
        check_bits("weight_bits", self.weight_bits)
        check_bits("activation_bits", self.activation_bits)
        self._check_options()
        self._activations: list[ActivationFakeQuantize] = []
        # Schemes check their bits when they make a module: any weight will do for that.
        weight = torch.ones(1, 1)
        for name, rule in self.rules.items():
            target = self.target(name, rule)
            try:
                target.weight_quantizer(weight)
                target.activation_quantizer()
            except ValueError as error:
                raise ValueError(f"rules.{name}.{error}") from None
        for name, output in self.outputs.items():
            try:
                self.output_quantizer(output)
            except ValueError as error:
                raise ValueError(f"outputs.{name}.{error}") from None

    def _check_options(self) -> None:
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay}: must be in [0, 1)")
        if self.freeze_at is not None and not 0 < self.freeze_at <= 1:
            raise ValueError(f"freeze_at={self.freeze_at}: must be a progress in (0, 1]")
        if self.accumulator_bits is not None and not 2 <= self.accumulator_bits <= 32:
            raise ValueError(f"accumulator_bits={self.accumulator_bits}: must be 2 to 32, or null (any)")

    def output_quantizer(self, rule: OutputRule) -> ActivationFakeQuantize | None:
        """The quantiser that a rule puts behind a module, None where its output stays in float."""
        bits = inherited_bits(rule.activation_bits, self.activation_bits)
        if bits is None:
            return None
        return self._activation_scheme(rule)(bits)

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
            self._activation_scheme(rule),
        )

    def _activation_scheme(self, rule: BitsRule | OutputRule) -> ActivationScheme:
        default = TrackedRange(self.ema_decay)
        return first_scheme(rule.activation, self.activation, default)

    def targets(self, model: nn.Module, products: Sequence[str] = ()) -> dict[str, Target]:
        """Layer -> what it gets; modules of ``products`` get the quantiser's own where no rule matches them.

        Raises:
            ValueError: a rule is left with no layer.
        """
        targets = {}
        matches = match_layers(model, self.rules, "quantize", products)
        for layer, (name, rule) in matches.items():
            targets[layer] = self.target(name, rule)
        for module in products:
            if module not in targets:
                targets[module] = self.target(UNRULED, BitsRule(match=""))
        return targets

    def resolve(self, model: nn.Module) -> dict[str, tuple[str, float | None, float | None]]:
        """Layer -> (rule name, weight bits, activation bits), bits None for float; products have no weight.

        Raises:
            ValueError: a rule is left with no layer, or there are no products to quantise.
        """
        products: Sequence[str] = ()
        if self.attention:
            products = products_to_quantize(model).modules
        resolved = {}
        for layer, target in self.targets(model, products).items():
            weight_bits = target.weight_bits
            if layer in products:
                weight_bits = None
            resolved[layer] = (target.rule, weight_bits, target.activation_bits)
        return resolved

    def output_rules(self, model: nn.Module) -> Matches[OutputRule]:
        """Module whose output is quantised -> its rule's name, and the rule.

        Raises:
            ValueError: a rule is left with no module.
        """
        return match_modules(model, self.outputs, "quantize.outputs")

    @property
    def reads_gradients(self) -> bool:
        """False: it leaves gradients to the optimiser."""
        return False

    def attach(self, model: nn.Module) -> None:
        """Give every ruled layer its quantisers, in place of inherited ones.

        Learned steps of weights start from the weights as they are; a checkpoint's values take their place on loading.

        Raises:
            ValueError: a rule is left with no layer, a masked layer would get weights without 0, a BatchNorm would
                fold into weights that are quantised already, or a product is out of reach.
        """
        self._activations = []
        if self.fold_batch_norm:
            try:
                fold_batch_norms(model, own_shape(model))
            except ValueError as error:
                raise ValueError(f"quantize.fold_batch_norm=true: {error}") from None
        products = NO_PRODUCTS
        if self.attention:
            products = products_to_quantize(model)
        device = next(model.parameters()).device
        for name, target in self.targets(model, products.modules).items():
            if name in products.modules:
                for operand in attach_operands(model, name, products, target):
                    self._remember(operand, device)
            else:
                self._attach_layer(name, model.get_submodule(name), target)
        for name, (_, rule) in self.output_rules(model).items():
            activation = self.output_quantizer(rule)
            attach_output_fake_quantize(model.get_submodule(name), activation)
            self._remember(activation, device)

    def _attach_layer(self, name: str, layer: nn.Module, target: Target) -> None:
        """Quantise the weight and the input of one layer."""
        try:
            effective = attach_effective_weight(layer)
        except ValueError as error:
            raise ValueError(f"quantize.rules.{target.rule}: {name}: {error}") from None
        weight = incoming_weight(layer).detach()
        quantizer = target.weight_quantizer(effective.masked(weight))
        if effective.mask is not None:
            try:
                check_zero(quantizer)
            except ValueError as error:
                raise ValueError(f"quantize.weight: {name}: {error}") from None
        effective.fake_quantize = quantizer
        activation = target.activation_quantizer()
        attach_input_fake_quantize(layer, activation)
        self._remember(activation, weight.device)

    def _remember(self, activation: ActivationFakeQuantize | None, device: torch.device) -> None:
        """Keep a quantiser whose range ``update`` freezes, where the network is."""
        if activation is not None:
            self._activations.append(activation.to(device))

    def update(self, step: int, total_steps: int) -> bool:
        """Freeze the ranges when due; the bits are the final ones from the first step on."""
        frozen = False
        if self.freeze_at is not None:
            frozen = step >= self.freeze_at * total_steps
        for activation in self._activations:
            activation.frozen = frozen
        return True

    def table(self, model: nn.Module) -> dict[str, dict[str, object]]:
        """Layer -> its rule and target, as the run's table shows them."""
        table: dict[str, dict[str, object]] = {}
        for layer, (rule_name, weight_bits, activation_bits) in self.resolve(model).items():
            table[layer] = {
                "quantize_rule": rule_name,
                "weight_bits": weight_bits,
                "activation_bits": activation_bits,
            }
        return table
