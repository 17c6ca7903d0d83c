"""Layers are chosen by named regular expressions; the last matching rule wins."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from micronet_cli.torch_internals import constructor_arguments

COMPRESSIBLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
DEFAULT_INPUT_SHAPE = (3, 224, 224)
# Parts of the names of modules that are not the network's own.
ADDED_BY_COMPRESSORS = frozenset(
    {"parametrizations", "input_fake_quantize", "output_fake_quantize", "operand_fake_quantize"}
)


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


def as_rules(rules: Mapping[str, Rule | Mapping[str, Any]], kind: type[Rule]) -> dict[str, Rule]:
    """Rules, each of them given as one of ``kind`` or as a mapping of its values.

    Raises:
        ValueError: other keys than the rule has.
    """
    made: dict[str, Rule] = {}
    for name, rule in rules.items():
        if not isinstance(rule, Mapping):
            made[name] = rule
            continue
        try:
            made[name] = kind(**rule)
        except TypeError as error:
            raise ValueError(f"rules.{name}: {error}") from None
    return made


def compressible_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every convolution and linear layer by name, in registration order."""
    layers = {}
    for name, module in model.named_modules():
        if isinstance(module, COMPRESSIBLE):
            layers[name] = module
    return layers


def match_layers(model: nn.Module, rules: Mapping[str, Rule], group: str, others: Iterable[str] = ()) -> Matches[Rule]:
    """Layer name -> (rule name, rule) for every layer that a rule matches, in the network's order.

    ``others`` are names of modules that may be matched as well, and come last.

    Raises:
        ValueError: a rule is left with no layer; the message holds near misses and ``group``, its place in the config.
    """
    names = [*compressible_layers(model), *others]
    where = f"{group}.rules"
    return _match(model, names, rules, where)


def match_modules(model: nn.Module, rules: Mapping[str, Rule], where: str) -> Matches[Rule]:
    """The same for modules of any kind; ``where`` is the rules' config path.

    Modules that compressors added are left out, and so is the network itself.
    """
    names = []
    for name, _ in model.named_modules():
        parts = name.split(".")
        if name and ADDED_BY_COMPRESSORS.isdisjoint(parts):
            names.append(name)
    return _match(model, names, rules, where)


def _match(model: nn.Module, names: list[str], rules: Mapping[str, Rule], where: str) -> Matches[Rule]:
    names_of_rule = _names_of_rules(model, names, rules)
    # A later rule replaces an earlier one.
    rule_of_name: dict[str, str] = {}
    for rule_name, matched in names_of_rule.items():
        for name in matched:
            rule_of_name[name] = rule_name
    problems = []
    rules_in_use = set(rule_of_name.values())
    for rule_name, rule in rules.items():
        if rule_name in rules_in_use:
            continue
        path = f"{where}.{rule_name}"
        matched = names_of_rule[rule_name]
        problem = _no_layer(path, rule, matched, names)
        problems.append(problem)
    if problems:
        raise ValueError("\n".join(problems))
    in_order: Matches[Rule] = {}
    for name in names:
        if name in rule_of_name:
            rule_name = rule_of_name[name]
            in_order[name] = (rule_name, rules[rule_name])
    return in_order


def _names_of_rules(model: nn.Module, names: list[str], rules: Mapping[str, Rule]) -> dict[str, list[str]]:
    """Rule -> the names that it matches, whether or not a later one takes them."""
    stem, classifier = ends(model)
    names_of_rule = {}
    for rule_name, rule in rules.items():
        pattern = rule.pattern(stem, classifier)
        names_of_rule[rule_name] = [name for name in names if pattern.fullmatch(name)]
    return names_of_rule


def shared_parameters(model: nn.Module) -> set[Tensor]:
    """Parameters that more than one module has."""
    owners: Counter[Tensor] = Counter()
    for module in model.modules():
        own_parameters = module.parameters(recurse=False)
        owners.update(own_parameters)
    return {tensor for tensor, count in owners.items() if count > 1}


def own_shape(model: nn.Module) -> tuple[int, ...]:
    """The input shape (channels, height, width) that a network states, (3, 224, 224) where it states none."""
    return stated_shape(model) or DEFAULT_INPUT_SHAPE


def stated_shape(model: nn.Module) -> tuple[int, ...] | None:
    """The input shape that a network states: what it is run with. None where it states none."""
    shape = _timm_record(model).get("input_size")
    if not shape:
        return None
    return _with_own_channels(model, shape)


def _timm_record(model: nn.Module) -> Mapping[str, Any]:
    """What timm tells of the network and its weights; empty where it tells nothing."""
    for key in ("pretrained_cfg", "default_cfg"):
        record = getattr(model, key, None)
        if record:
            return record
    return {}


def _with_own_channels(model: nn.Module, shape: Sequence[int]) -> tuple[int, ...]:
    """``shape`` with the channels that the network was built for: timm goes on stating those of its weights."""
    channels, *sides = shape
    built_for = constructor_arguments(model).get("in_chans")
    return (built_for or channels, *sides)


def ends(model: nn.Module) -> tuple[str, str]:
    """Names of the first and the last compressible layer; timm's own record of them where there is one.

    Raises:
        ValueError: the network has no such layer.
    """
    layers = list(compressible_layers(model))
    if not layers:
        raise ValueError("the network has no convolution and no linear layer")
    record = getattr(model, "pretrained_cfg", None) or {}
    recorded_stem = record.get("first_conv")
    recorded_classifier = record.get("classifier")
    stem = _recorded(recorded_stem, layers) or layers[0]
    classifier = _recorded(recorded_classifier, layers) or layers[-1]
    return stem, classifier


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
        count = len(matched)
        return f"{path}: left with no layer, later rules take all of its {count} (the last matching rule wins)"
    plain = rule.match.replace("\\", "")
    near_misses = difflib.get_close_matches(plain, layers, n=3, cutoff=0.3)
    examples = near_misses or layers[:3]
    listed = ", ".join(examples)
    return f"{path}.match={rule.match!r}: matches no layer; layers are named like {listed}"
