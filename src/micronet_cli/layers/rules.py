"""Layers are chosen by named regular expressions; the last matching rule wins."""

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

COMPRESSIBLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
DEFAULT_INPUT_SHAPE = (3, 224, 224)
# Parts of the names of modules that are not the network's own.
ADDED_BY_COMPRESSORS = frozenset({"parametrizations", "input_fake_quantize", "output_fake_quantize"})


@dataclass(frozen=True)
class LayerRule:
    """A rule's layers.

    Attributes:
        match: regular expression, matched with the whole module name. ``{stem}`` and ``{classifier}`` stand for the
            names of the network's first and last weighted layer.
    """

    match: str

    def __post_init__(self) -> None:
        try:
            self.pattern("x", "x")
        except re.error as error:
            raise ValueError(f"match={self.match!r}: not a regular expression ({error})") from None

    def pattern(self, stem: str, classifier: str) -> re.Pattern[str]:
        """The expression with the names of the network's first and last weighted layer put in."""
        expression = self.match
        expression = expression.replace("{stem}", re.escape(stem))
        expression = expression.replace("{classifier}", re.escape(classifier))
        return re.compile(expression)


Rule = TypeVar("Rule", bound=LayerRule)
Matches = dict[str, tuple[str, Rule]]  # layer -> name of its rule, rule


def compressible_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every convolution and linear layer by name, in registration order."""
    layers = {}
    for name, module in model.named_modules():
        if isinstance(module, COMPRESSIBLE):
            layers[name] = module
    return layers


def match_layers(model: nn.Module, rules: Mapping[str, Rule], group: str) -> Matches[Rule]:
    """Layer name -> (rule name, rule) for every layer that a rule matches, in the network's order.

    Raises:
        ValueError: a rule is left with no layer; the message holds near misses and ``group``, its place in the config.
    """
    names = list(compressible_layers(model))
    return _match(model, names, rules, f"{group}.rules")


def match_modules(model: nn.Module, rules: Mapping[str, Rule], where: str) -> Matches[Rule]:
    """The same for modules of any kind; ``where`` is the rules' config path.

    Modules that compressors added are left out, and so is the network itself.
    """
    names = []
    for name, _ in model.named_modules():
        if name and ADDED_BY_COMPRESSORS.isdisjoint(name.split(".")):
            names.append(name)
    return _match(model, names, rules, where)


def _match(model: nn.Module, names: list[str], rules: Mapping[str, Rule], where: str) -> Matches[Rule]:
    stem, classifier = ends(model)
    chosen: Matches[Rule] = {}
    matched: dict[str, list[str]] = {}
    for rule_name, rule in rules.items():
        pattern = rule.pattern(stem, classifier)
        matched[rule_name] = [name for name in names if pattern.fullmatch(name)]
        # A later rule replaces an earlier one.
        for name in matched[rule_name]:
            chosen[name] = (rule_name, rule)
    rules_in_use = {rule_name for rule_name, _ in chosen.values()}
    problems = []
    for rule_name, rule in rules.items():
        if rule_name not in rules_in_use:
            problems.append(_no_layer(f"{where}.{rule_name}", rule, matched[rule_name], names))
    if problems:
        raise ValueError("\n".join(problems))
    in_order: Matches[Rule] = {}
    for name in names:
        if name in chosen:
            in_order[name] = chosen[name]
    return in_order


def shared_parameters(model: nn.Module) -> set[Tensor]:
    """Parameters that more than one module has."""
    owners: Counter[Tensor] = Counter()
    for module in model.modules():
        owners.update(module.parameters(recurse=False))
    return {tensor for tensor, count in owners.items() if count > 1}


def own_shape(model: nn.Module) -> tuple[int, ...]:
    """The input shape (channels, height, width) that a network states, (3, 224, 224) where it states none."""
    known = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    shape = known.get("input_size") or DEFAULT_INPUT_SHAPE
    return tuple(shape)


def ends(model: nn.Module) -> tuple[str, str]:
    """Names of the first and the last compressible layer; timm's own record of them where there is one.

    Raises:
        ValueError: the network has no such layer.
    """
    layers = list(compressible_layers(model))
    if not layers:
        raise ValueError("the network has no convolution and no linear layer")
    record = getattr(model, "pretrained_cfg", None) or {}
    stem = _recorded(record.get("first_conv"), layers)
    classifier = _recorded(record.get("classifier"), layers)
    return stem or layers[0], classifier or layers[-1]


def _recorded(names: str | Sequence[str] | None, layers: list[str]) -> str | None:
    """The first of timm's ``names`` (one, several or none) that is a layer; None where none is."""
    if isinstance(names, str):
        names = [names]
    for name in names or []:
        if name in layers:
            return name
    return None


def _no_layer(path: str, rule: LayerRule, matched: list[str], layers: list[str]) -> str:
    """What to say of a rule that is left with no layer."""
    if matched:
        return f"{path}: left with no layer, later rules take all of its {len(matched)} (the last matching rule wins)"
    plain = rule.match.replace("\\", "")
    near_misses = difflib.get_close_matches(plain, layers, n=3, cutoff=0.3)
    examples = near_misses or layers[:3]
    return f"{path}.match={rule.match!r}: matches no layer; layers are named like {', '.join(examples)}"
