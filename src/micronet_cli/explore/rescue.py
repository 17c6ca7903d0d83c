"""A bit more for the layers that hurt most."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

MOST_BITS = 8  # that a layer is raised to
SAVED_BY_A_BIT = 0.75  # of a layer's squared error: half the step, a quarter of its square
Bits = tuple[float | None, float | None]  # of a layer's weight and input, None: float
Rules = Mapping[str, Mapping[str, Any]]


def raised(bits: Bits) -> Bits:
    """A bit more each, up to 8, where there are fewer; fractional bits go on to the next whole number.

    >>> raised((4, 8)), raised((2.5, None)), raised((8, 16))
    ((5, 8), (3, None), (8, 16))
    """
    weight_bits, activation_bits = bits
    return _raised(weight_bits), _raised(activation_bits)


def _raised(bits: float | None) -> float | None:
    if bits is None or bits >= MOST_BITS:
        return bits
    return math.floor(bits) + 1


def layers_needed(saved: Sequence[float], changed: float, wanted: float) -> int:
    """How many layers, the worst first, should bring the share of changed predictions down to ``wanted``.

    Predictions change about as the logits' error grows, which is the square root of its square: that has to fall to
    (wanted / changed)^2. A bit more takes three quarters of what a layer adds to it.

    >>> layers_needed([0.5, 0.3, 0.1], changed=0.04, wanted=0.03), layers_needed([0.1, 0.1], changed=0.04, wanted=0.01)
    (2, 2)

    Args:
        saved: part of the logits' squared error that comes of each layer.
        changed: share of the predictions that change now.
        wanted: less.
    """
    needed = 1 - (wanted / changed) ** 2
    total = 0.0
    for number, part in enumerate(saved, start=1):
        total += SAVED_BY_A_BIT * max(part, 0.0)
        if total >= needed:
            return number
    return len(saved)


def rules_with(rules: Rules, own: Mapping[str, tuple[str, Bits]], bits: Mapping[str, Bits]) -> dict[str, Any]:
    """The rules of a ``quantize`` group, refined so that some layers have other bits.

    >>> rules_with({"all": {"match": ".*"}}, {"a": ("all", (4, 8)), "b": ("all", (4, 8))}, {"b": (5, 8)})
    {'all': {'match': '.*'}, 'all_w5a8': {'match': 'b', 'weight_bits': 5, 'activation_bits': 8}}

    Args:
        rules: name -> the rule's config.
        own: layer -> the name of its rule, and the bits that it has by that.
        bits: layer -> the bits that it is to have.

    Returns:
        the rules, those left out that would be left with no layer.
    """
    layers: dict[tuple[str, Bits], list[str]] = {}
    kept = set()
    for layer, (rule, _) in own.items():
        if layer in bits:
            layers.setdefault((rule, bits[layer]), []).append(layer)
        else:
            kept.add(rule)
    found = {name: dict(rule) for name, rule in rules.items() if name in kept}
    for (rule, (weight_bits, activation_bits)), named in layers.items():
        name = _name(rule, (weight_bits, activation_bits))
        while name in rules or name in found:
            name += "_"
        found[name] = {
            **rules.get(rule, {}),
            "match": "|".join(re.escape(layer) for layer in named),
            "weight_bits": weight_bits,
            "activation_bits": activation_bits,
        }
    return found


def _name(rule: str, bits: Bits) -> str:
    """``conv`` with (5, 8) bits -> ``conv_w5a8``; a dot would cut it in two on the command line."""
    weight_bits, activation_bits = bits
    name = f"{rule}_"
    if weight_bits is not None:
        name += f"w{weight_bits:g}"
    if activation_bits is not None:
        name += f"a{activation_bits:g}"
    return name.replace(".", "_")
