"""Guards what the compressor groups do to a network: order, history, the table of rules, and what is refused."""

from types import SimpleNamespace

import pytest

from micronet_cli.errors import UserError
from micronet_cli.stages.compress import attach_compressors, check_unpacked, logged_rule_table, rule_table


class Compressor:
    """One that notes when it is attached."""

    def __init__(self, table, attached=None, error=None):
        self.rows, self.attached, self.error = table, attached, error

    def attach(self, model):
        if self.error:
            raise ValueError(self.error)
        self.attached.append(self)

    def table(self, model):
        return self.rows


def job_of(prune, quantize):
    return SimpleNamespace(
        parts=SimpleNamespace(prune=prune, quantize=quantize), group_config=lambda group: {"group": group}
    )


def network_of(packed=None):
    return SimpleNamespace(model=None, packed=packed, compressors=["earlier"])


def test_compressors_are_attached_prune_first_and_noted():
    order: list = []
    prune, quantize = Compressor({}, order), Compressor({}, order)
    network = network_of()
    assert attach_compressors(job_of(prune, quantize), network) == [prune, quantize] == order
    assert network.compressors == ["earlier", {"group": "prune"}, {"group": "quantize"}]


def test_nothing_is_attached_where_both_groups_are_none():
    network = network_of("model.mnet")
    assert attach_compressors(job_of(None, None), network) == []
    assert network.compressors == ["earlier"]


def test_every_rule_without_a_layer_is_named():
    job = job_of(Compressor({}, error="prune.rules.a: x"), Compressor({}, error="quantize.rules.b: y"))
    with pytest.raises(UserError) as caught:
        attach_compressors(job, network_of())
    assert str(caught.value) == "prune.rules.a: x\nquantize.rules.b: y"


def test_packed_network_is_not_compressed():
    with pytest.raises(UserError, match=r"prune: 'model\.mnet' is packed and stays as it is; give init_from="):
        attach_compressors(job_of(Compressor({}, []), None), network_of("model.mnet"))
    check_unpacked(network_of(), "prune")


def test_rule_table_joins_what_compressors_say_of_a_layer():
    first = Compressor({"a": {"sparsity": 0.5}, "b": {"sparsity": 0.9}})
    second = Compressor({"c": {"bits": 4}, "a": {"bits": 8}})
    assert rule_table([first, second], network_of()) == {
        "a": {"sparsity": 0.5, "bits": 8},
        "b": {"sparsity": 0.9},
        "c": {"bits": 4},
    }
    assert first.rows["a"] == {"sparsity": 0.5}
    assert rule_table([], network_of()) == {}


def test_rules_are_told_in_a_line_for_all_layers_with_the_same_targets(caplog):
    targets = {"rule": "conv", "sparsity": 0.5}
    compressor = Compressor({"a": targets, "b": targets, "stem": {"rule": "stem", "sparsity": 0.1}, "c": targets})
    with caplog.at_level("INFO"):
        rules = logged_rule_table([compressor], network_of())
    assert rules == compressor.rows
    assert caplog.messages[0].splitlines() == [
        "layers   number  rule  sparsity",
        "a ... c       3  conv       0.5",
        "stem          1  stem       0.1",
    ]


def test_nothing_is_told_where_there_are_no_rules(caplog):
    with caplog.at_level("INFO"):
        assert logged_rule_table([], network_of()) == {}
    assert caplog.messages == []
