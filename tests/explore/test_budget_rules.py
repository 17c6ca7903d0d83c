"""Chosen options become rules that ``prune=`` and ``quantize=`` take."""

import re

from micronet_cli.explore.budget_rules import match_of, prune_rules, quantize_rules
from micronet_cli.explore.prices import AS_IT_IS, Option


def test_rules_group_layers_with_the_same_option():
    options = {"a.0": Option(0.625, 2.5, 4), "b": AS_IT_IS, "c": Option(0.625, None, 4), "d": Option(None, 2.5, 4)}
    assert prune_rules(options) == {"s625": {"match": r"a\.0|c", "sparsity": 0.625}}
    assert quantize_rules(options) == {
        "a4": {"match": "c", "weight_bits": None, "activation_bits": 4},
        "w2_5a4": {"match": r"a\.0|d", "weight_bits": 2.5, "activation_bits": 4},
    }


def test_a_match_is_of_exactly_these_layers():
    pattern = re.compile(match_of(["a.0", "b"]))
    assert [name for name in ("a.0", "a00", "b", "bb") if pattern.fullmatch(name)] == ["a.0", "b"]
