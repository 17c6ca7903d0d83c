"""Options of a rule set, tasks and bases, and operations without a price."""

from dataclasses import fields

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from micronet_cli.scoring import rule_set, score
from micronet_cli.scoring.official import Official
from micronet_cli.scoring.rules import TASKS, Base, Rules, UnknownOperation, rules_named
from micronet_cli.scoring.seed2019 import Seed2019
from micronet_cli.trace.records import Op, TracedNetwork
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


BAD_OPTIONS = {
    "all zeros": {"weight_sparsity": 1.0},
    "negative sparsity": {"weight_sparsity": -0.1},
    "what to do with unknown operations": {"unknown": "ignore"},
    "accumulator": {"accumulator": "int8"},
    "task": {"task": "mnist"},
    "no bits": {"nonlinearity_bits": 0},
    "too many bits": {"nonlinearity_bits": 33},
    "shape without channels": {"input_shape": [224, 224]},
    "shape of no integers": {"input_shape": [3, 224.0, 224]},
    "shape of zeros": {"input_shape": [3, 0, 224]},
    "probability above 1": {"paths": {"head": 1.5}},
    "negative probability": {"paths": {"head": -0.5}},
    "probabilities above 1 together": {"paths": {"head1": 0.6, "head2": 0.6}},
    "empty block": {"block": []},
    "block of 0": {"block": [0, 4]},
    "block of a letter": {"block": [4, "x"]},
    "misspelt rule set": {"compare": "oficial"},
    "a class that is no rule set": {"compare": "collections.OrderedDict"},
    "a module that is missing": {"compare": "no.such.Rules"},
}


@pytest.mark.parametrize("options", BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
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


@pytest.mark.parametrize("name", ["params", "ops"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_base_of_no_size_is_refused(name, value):
    sizes = {"params": 1e6, "ops": 1e9, name: value}
    with pytest.raises(ValueError, match=f"{name}={value}: must be a positive number"):
        Base(**sizes, top1=75)


TASKS_BY_SHAPE = {
    "up to 64 pixels": ((3, 64, 64), {}, TASKS["cifar100"]),
    "the longer side decides": ((3, 32, 65), {}, TASKS["imagenet"]),
    "no image": ((8,), {}, TASKS["cifar100"]),
    "named": ((3, 32, 32), {"task": "imagenet"}, TASKS["imagenet"]),
}


@pytest.mark.parametrize(("shape", "options", "base"), TASKS_BY_SHAPE.values(), ids=TASKS_BY_SHAPE.keys())
def test_base_follows_the_task_then_the_image(shape, options, base):
    assert Official(**options).base(shape) == base


def test_own_base_may_replace_one_of_the_challenge():
    own = Base(params=1, ops=2, top1=3)
    assert Official(bases={"imagenet": own}).base((3, 224, 224)) is own


def test_rules_named_finds_short_names_and_dotted_paths():
    assert rules_named("rules", "official") is Official
    assert rules_named("rules", "seed2019") is Seed2019
    assert rules_named("rules", f"{Official.__module__}.Official") is Official


def test_name_is_what_the_score_profile_says():
    assert (Official().name, Seed2019().name) == ("official", "seed2019")


def test_rules_without_their_own_counting_count_nothing():
    network = TracedNetwork((), (), (), {}, (3, 8, 8))
    for count in (Rules().storage, Rules().math, Rules().charges):
        with pytest.raises(NotImplementedError):
            count(network)


def test_weight_of_falls_after_every_exit():
    network = TracedNetwork((), (), (), {}, (3, 8, 8), ends={"first": 2, "second": 4})
    rules = Rules(paths={"first": 0.5, "second": 0.25})
    assert [rules.weight_of(index, network) for index in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    with pytest.raises(ValueError, match="paths=third: no module of this name was executed"):
        Rules(paths={"third": 0.5}).weight_of(0, network)


def test_operation_without_a_price_in_the_network_itself_is_named_so():
    with pytest.raises(UnknownOperation, match="in layer '\\(the network itself\\)' has no price"):
        Rules().price(Op("special_bessel_j0", "", (0,), (1,)))
