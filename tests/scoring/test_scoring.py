"""The package's own doors: a rule set by name, a score of a model, a trace or a class of rules."""

import pytest
import torch
from torch import nn

from micronet_cli.scoring import rule_set, score, score_with
from micronet_cli.scoring.official import Official
from micronet_cli.scoring.seed2019 import Seed2019
from micronet_cli.trace.trace import Trace


def layer():
    torch.manual_seed(0)
    return nn.Linear(4, 2, bias=False)


def test_rule_set_takes_its_options():
    assert rule_set("official", accumulator="integer") == Official(accumulator="integer")
    with pytest.raises(ValueError, match="accumulator=int8"):
        rule_set("official", accumulator="int8")


def test_score_takes_a_name_or_rules_and_options_for_either():
    by_name = score(layer(), (1, 1, 4), "official", freebie=True)
    assert by_name == score(layer(), (1, 1, 4), Official(freebie=True))
    assert by_name == score(layer(), (1, 1, 4), Official(), freebie=True)
    assert by_name["storage_params"] == 4


def test_score_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    score(model, (3, 4, 4))
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_rules_shape_comes_before_the_arguments():
    pool = nn.AvgPool2d(2)
    report = score_with(pool, rule_set("official", input_shape=[3, 8, 8]), (3, 32, 32))
    assert report.network.input_shape == (3, 8, 8)


def test_score_of_a_trace_is_that_of_its_model():
    model = layer()
    trace = Trace(model, (1, 1, 4))
    assert score_with(trace, Official()).metrics() == score(model, (1, 1, 4))


def test_compared_rules_share_task_and_what_if_alone():
    rules = rule_set("official", compare="seed2019", task="imagenet", weight_sparsity=0.5, accumulator="integer")
    compared = score_with(layer(), rules, (1, 1, 4)).compared
    assert compared.rules == Seed2019(task="imagenet", weight_sparsity=0.5)
    assert score_with(layer(), Official(), (1, 1, 4)).compared is None
