"""Options of a rule set, tasks and bases, and operations without a price."""

from dataclasses import fields

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from micronet_cli.scoring import rule_set, score
from micronet_cli.scoring.official import Official
from micronet_cli.scoring.rules import Base, UnknownOperation
from tests.scoring.recipe import CONF


class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


def test_operation_without_a_price_is_an_error_that_names_it_and_its_layer():
    model = nn.Sequential()
    model.add_module("odd", Bessel())
    with pytest.raises(UnknownOperation, match=r"'special_bessel_j0' in layer 'odd'"):
        score(model, (1, 2, 2))


def test_operation_without_a_price_can_count_at_32_bits():
    with pytest.warns(UserWarning, match="4 elements counted at 32 bits"):
        assert score(Bessel(), (1, 2, 2), unknown="warn")["math_ops"] == 4


@pytest.mark.parametrize(
    "options",
    [
        {"weight_sparsity": 1.0},
        {"unknown": "ignore"},
        {"accumulator": "int8"},
        {"task": "mnist"},
        {"nonlinearity_bits": 0},
        {"input_shape": [224, 224]},
        {"paths": {"head": 1.5}},
        {"block": [0, 4]},
        {"block": [4, "x"]},
        {"compare": "oficial"},
        {"compare": "collections.OrderedDict"},
    ],
)
def test_bad_option_is_named_with_its_value(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name}=") as error:
        Official(**options)
    assert str(value) in str(error.value)


def test_task_follows_the_image_size_and_a_base_can_be_added():
    layer = nn.Conv2d(3, 1, 1)
    small, large = score(layer, (3, 32, 32)), score(layer, (3, 224, 224))
    assert small["storage_score"] == 4 / 36.5e6
    assert large["storage_score"] == 4 / 6.9e6
    own = score(layer, (3, 32, 32), task="own", bases={"own": Base(params=8, ops=1e3, top1=90)})
    assert own["storage_score"] == 0.5


@pytest.mark.parametrize("name", ["official", "seed2019"])
def test_yaml_lists_every_option_at_its_default(name):
    cfg = OmegaConf.to_container(OmegaConf.load(CONF / f"score/{name}.yaml"))
    target = cfg.pop("_target_")
    assert rule_set(target, **cfg) == rule_set(name)
    assert list(cfg) == [field.name for field in fields(Official)]


def test_unknown_rule_set_is_refused():
    with pytest.raises(ValueError, match="rules=unofficial"):
        rule_set("unofficial")
