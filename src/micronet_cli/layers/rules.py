"""Layers are chosen by named regular expressions; the last matching rule wins."""

import difflib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

COMPRESSIBLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
DEFAULT_INPUT_SHAPE = (3, 224, 224)


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
            re.compile(self.match.replace("{stem}", "x").replace("{classifier}", "x"))
        except re.error as error:
            raise ValueError(f"match={self.match!r}: not a regular expression ({error})") from None


Rule = TypeVar("Rule", bound=LayerRule)


def compressible_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every convolution and linear layer by name, in registration order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, COMPRESSIBLE)}


def match_layers(model: nn.Module, rules: Mapping[str, Rule], group: str) -> dict[str, tuple[str, Rule]]:
    """Layer name -> (rule name, rule) for every layer that a rule matches, in the network's order.

    Raises:
        ValueError: a rule is left with no layer; the message holds near misses and ``group``, its place in the config.
    """
    return _match(model, list(compressible_layers(model)), rules, f"{group}.rules")


def match_modules(model: nn.Module, rules: Mapping[str, Rule], where: str) -> dict[str, tuple[str, Rule]]:
    """The same for modules of any kind, those that compressors added left out; ``where`` is the rules' config path."""
    added = ("parametrizations", "input_fake_quantize", "output_fake_quantize")
    names = [name for name, _ in model.named_modules() if name and not set(added) & set(name.split("."))]
    return _match(model, names, rules, where)


def _match(model: nn.Module, names: list[str], rules: Mapping[str, Rule], where: str) -> dict[str, tuple[str, Rule]]:
    stem, classifier = (re.escape(name) for name in ends(model))
    chosen: dict[str, tuple[str, Rule]] = {}
    matched: dict[str, list[str]] = {}
    for rule_name, rule in rules.items():
        pattern = re.compile(rule.match.replace("{stem}", stem).replace("{classifier}", classifier))
        matched[rule_name] = [name for name in names if pattern.fullmatch(name)]
        chosen |= {name: (rule_name, rule) for name in matched[rule_name]}
    left = {rule_name for rule_name, _ in chosen.values()}
    problems = [_no_layer(f"{where}.{name}", rules[name], matched[name], names) for name in rules if name not in left]
    if problems:
        raise ValueError("\n".join(problems))
    return {name: chosen[name] for name in names if name in chosen}


def shared_parameters(model: nn.Module) -> set[Tensor]:
    """Parameters that more than one module has."""
    owners = Counter(tensor for module in model.modules() for tensor in module.parameters(recurse=False))
    return {tensor for tensor, count in owners.items() if count > 1}


def own_shape(model: nn.Module) -> tuple[int, ...]:
    """The input shape (channels, height, width) a network says it wants, (3, 224, 224) where it says nothing."""
    known = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    return tuple(known.get("input_size") or DEFAULT_INPUT_SHAPE)


def ends(model: nn.Module) -> tuple[str, str]:
    """Names of the first and the last compressible layer; timm's own record of them where there is one."""
    layers = list(compressible_layers(model))
    if not layers:
        raise ValueError("the network has no convolution and no linear layer")
    known = getattr(model, "pretrained_cfg", None) or {}

    def pick(key: str, default: str) -> str:
        names = known.get(key)
        return next((n for n in ([names] if isinstance(names, str) else names or []) if n in layers), default)

    return pick("first_conv", layers[0]), pick("classifier", layers[-1])


def _no_layer(path: str, rule: LayerRule, matched: list[str], layers: list[str]) -> str:
    if matched:
        return f"{path}: left with no layer, later rules take all of its {len(matched)} (the last matching rule wins)"
    near = difflib.get_close_matches(rule.match.replace("\\", ""), layers, n=3, cutoff=0.3) or layers[:3]
    return f"{path}.match={rule.match!r}: matches no layer; layers are named like {', '.join(near)}"
