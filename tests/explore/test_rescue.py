"""Guards which bits rescued layers get, how many layers that takes, and the rules that say so."""

from typing import NamedTuple

import pytest
from torch import nn

from micronet_cli.compression.quantization.quantizer import Quantizer
from micronet_cli.explore.rescue import layers_needed, raised, rules_with

RAISED = {
    "whole bits": ((4, 8), (5, 8)),
    "fractional bits": ((2.5, 1.6), (3, 2)),
    "float": ((None, 4), (None, 5)),
    "more than eight": ((7.5, 16), (8, 16)),
    "nothing to raise": ((8, None), (8, None)),
}


@pytest.mark.parametrize(("bits", "more"), RAISED.values(), ids=RAISED.keys())
def test_a_bit_more_each(bits, more):
    assert raised(bits) == more


class Need(NamedTuple):
    """Parts of the error by layer, changed predictions now and as wanted, layers."""

    saved: list[float]
    changed: float
    wanted: float
    layers: int


NEEDS = {
    # Half the changes are a quarter of the squared error: three quarters must go, as a bit more takes of a layer's.
    "one layer with all": Need([1.0, 0.5], 0.04, 0.02, 1),
    "two of them": Need([0.5, 0.5, 0.5], 0.04, 0.02, 2),
    "harmless ones bring nothing": Need([0.5, -1.0, 0.5, 0.1], 0.04, 0.02, 3),
    "all do not suffice": Need([0.1, 0.1], 0.04, 0.0, 2),
}


@pytest.mark.parametrize("need", NEEDS.values(), ids=NEEDS.keys())
def test_as_many_layers_as_it_takes(need):
    assert layers_needed(need.saved, need.changed, need.wanted) == need.layers


MODEL = nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))
RULES = {
    "all": {"match": ".*"},
    "last": {"match": "3", "weight_bits": 2.5, "weight": {"_target_": "scheme"}},
}


def bits_by(rules):
    plain = {name: {key: rule[key] for key in rule if key != "weight"} for name, rule in rules.items()}
    resolved = Quantizer(plain, 4, 8).resolve(MODEL)
    return {layer: (rule, (weight, activation)) for layer, (rule, weight, activation) in resolved.items()}


def test_refined_rules_give_the_layers_those_bits_and_leave_the_others():
    own = bits_by(RULES)
    rules = rules_with(RULES, own, {"1": (5, 8), "2": (5, 8), "3": (3, 8)})
    assert list(rules) == ["all", "all_w5a8", "last_w3a8"]
    assert rules["last_w3a8"]["weight"] == {"_target_": "scheme"}
    found = bits_by(rules)
    assert {layer: bits for layer, (_, bits) in found.items()} == {"0": (4, 8), "1": (5, 8), "2": (5, 8), "3": (3, 8)}


def test_a_rule_without_a_layer_is_left_out_and_names_do_not_clash():
    rules = {"all": {"match": ".*"}, "all_w5a8": {"match": "3", "weight_bits": 7}}
    own = bits_by(rules)
    refined = rules_with(rules, own, dict.fromkeys("012", (5, 8)))
    assert list(refined) == ["all_w5a8", "all_w5a8_"]
    assert bits_by(refined)["3"] == ("all_w5a8", (7, 8))


def test_names_hold_no_dot_and_matches_are_literal():
    rules = rules_with({"all": {"match": ".*"}}, {"a.b": ("all", (2, None))}, {"a.b": (2.5, None)})
    assert rules == {"all_w2_5": {"match": r"a\.b", "weight_bits": 2.5, "activation_bits": None}}


def test_products_that_no_rule_matches_get_one():
    own = {"attn": ("attention", (None, 4)), "0": ("all", (4, 4))}
    rules = rules_with({"all": {"match": ".*"}}, own, {"attn": (None, 5)})
    assert rules["attention_a5"] == {"match": "attn", "weight_bits": None, "activation_bits": 5}
