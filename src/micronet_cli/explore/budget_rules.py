"""Chosen options as rules of the ``prune`` and ``quantize`` groups."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from micronet_cli.explore.prices import Option


def prune_rules(options: Mapping[str, Option]) -> dict[str, dict[str, Any]]:
    """Rules of the ``prune`` group, one a sparsity; layers left as they are have none.

    >>> prune_rules({"a": Option(0.5), "b": Option(), "c": Option(0.5)})
    {'s500': {'match': 'a|c', 'sparsity': 0.5}}
    """
    layers: dict[float, list[str]] = defaultdict(list)
    for layer, option in options.items():
        if option.sparsity is not None:
            layers[option.sparsity].append(layer)
    rules = {}
    for sparsity in sorted(layers):
        name = _name(f"s{1000 * sparsity:g}")
        rules[name] = {"match": match_of(layers[sparsity]), "sparsity": sparsity}
    return rules


def quantize_rules(options: Mapping[str, Option]) -> dict[str, dict[str, Any]]:
    """Rules of the ``quantize`` group, one a pair of bits; None is float.

    >>> quantize_rules({"a": Option(None, 4, None), "b": Option()})
    {'w4': {'match': 'a', 'weight_bits': 4, 'activation_bits': None}}
    """
    layers: dict[tuple[float, float], list[str]] = defaultdict(list)
    for layer, option in options.items():
        # 0 for None, so that pairs can be sorted.
        bits = (option.weight_bits or 0, option.activation_bits or 0)
        if any(bits):
            layers[bits].append(layer)
    rules = {}
    for weight_bits, activation_bits in sorted(layers):
        name = ""
        if weight_bits:
            name += f"w{weight_bits:g}"
        if activation_bits:
            name += f"a{activation_bits:g}"
        rules[_name(name)] = {
            "match": match_of(layers[weight_bits, activation_bits]),
            "weight_bits": weight_bits or None,
            "activation_bits": activation_bits or None,
        }
    return rules


def _name(text: str) -> str:
    """A rule's name: a dot would cut it in two on the command line."""
    return text.replace(".", "_")


def match_of(layers: Sequence[str]) -> str:
    """The regular expression of exactly these layers."""
    return "|".join(re.escape(layer) for layer in layers)
