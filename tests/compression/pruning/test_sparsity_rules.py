"""Which layers are pruned and how far, as rules say it and as the run's table shows it."""

import pytest
from torch import nn

from micronet_cli.compression.pruning.sparsity_rules import SparsityRule, sparsity_table


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 2))


def test_a_later_rule_wins_and_null_is_shown_as_zero():
    rules = {"all": SparsityRule(".*", 0.5), "stem": SparsityRule("0", None)}
    assert sparsity_table(network(), rules) == {
        "0": {"prune_rule": "stem", "target_sparsity": 0.0},
        "1": {"prune_rule": "all", "target_sparsity": 0.5},
        "3": {"prune_rule": "all", "target_sparsity": 0.5},
    }


def test_no_rules_give_an_empty_table():
    assert sparsity_table(network(), {}) == {}


def test_a_rule_left_with_no_layer_is_refused():
    rules = {"first": SparsityRule("1", 0.5), "all": SparsityRule(".*", 0.2)}
    with pytest.raises(ValueError, match="first"):
        sparsity_table(network(), rules)


@pytest.mark.parametrize("sparsity", [0, 0.0, 0.999, None])
def test_fractions_below_one_are_taken(sparsity):
    assert SparsityRule(".*", sparsity).sparsity == sparsity
