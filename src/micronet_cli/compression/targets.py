"""Layers are chosen by named regular expressions; the last matching rule wins."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

COMPRESSIBLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


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
    layers = list(compressible_layers(model))
    stem, classifier = (re.escape(name) for name in ends(model))
    chosen: dict[str, tuple[str, Rule]] = {}
    matched: dict[str, list[str]] = {}
    for rule_name, rule in rules.items():
        pattern = re.compile(rule.match.replace("{stem}", stem).replace("{classifier}", classifier))
        matched[rule_name] = [layer for layer in layers if pattern.fullmatch(layer)]
        chosen |= {layer: (rule_name, rule) for layer in matched[rule_name]}
    left = {rule_name for rule_name, _ in chosen.values()}
    problems = [
        _no_layer(f"{group}.rules.{name}", rules[name], matched[name], layers) for name in rules if name not in left
    ]
    if problems:
        raise ValueError("\n".join(problems))
    return {layer: chosen[layer] for layer in layers if layer in chosen}


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
