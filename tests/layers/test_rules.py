"""Which layers a rule matches, which rule wins, and what is said of a rule without a layer."""

from typing import NamedTuple

import pytest
import timm
import torch
from torch import nn

from micronet_cli.layers.effective_weight import attach_mask
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, attach_input_fake_quantize
from micronet_cli.layers.rules import (
    LayerRule,
    compressible_layers,
    ends,
    match_layers,
    match_modules,
    own_shape,
    shared_parameters,
)
from micronet_cli.models import cifar_resnet  # noqa: F401


class Ends(NamedTuple):
    stem: str
    classifier: str


TIMM_ENDS = {
    "tf_efficientnet_b0": Ends("conv_stem", "classifier"),
    "mobilenetv3_small_050": Ends("conv_stem", "classifier"),
    "vit_tiny_patch16_224": Ends("patch_embed.proj", "head"),
    "resnet18": Ends("conv1", "fc"),
}


@pytest.fixture(scope="module")
def model():
    return timm.create_model("resnet8")


def rules(**patterns):
    return {name: LayerRule(match) for name, match in patterns.items()}


def small(**config):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 2))
    model.pretrained_cfg = config
    return model


def test_compressible_layers_are_convolutions_and_linear_layers_in_order():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2), nn.Conv3d(2, 2, 1))
    assert list(compressible_layers(model)) == ["0", "2", "4"]


def test_last_matching_rule_wins(model):
    found = match_layers(model, rules(all=".*", first=r"layer1\..*"), "prune")
    assert found["layer1.0.conv1"][0] == "first"
    assert found["conv1"][0] == "all"


def test_matches_are_in_the_order_of_the_network_not_of_the_rules():
    found = match_layers(small(), rules(last="2", first="0"), "prune")
    assert [(layer, name) for layer, (name, _) in found.items()] == [("0", "first"), ("2", "last")]


def test_match_is_of_the_whole_name(model):
    assert list(match_layers(model, rules(stem="conv1"), "prune")) == ["conv1"]


def test_stem_and_classifier_have_names(model):
    found = match_layers(model, rules(rest="(?!{stem}$|{classifier}$).*"), "prune")
    assert set(found) == set(compressible_layers(model)) - {"conv1", "linear"}


def test_pattern_takes_the_dots_of_a_name_literally():
    pattern = LayerRule("{stem}|{classifier}").pattern("a.b", "c")
    assert pattern.fullmatch("a.b")
    assert pattern.fullmatch("c")
    assert not pattern.fullmatch("axb")


@pytest.mark.parametrize("name", TIMM_ENDS)
def test_ends_of_timm_networks(name):
    assert ends(timm.create_model(name)) == TIMM_ENDS[name]


@pytest.mark.parametrize(
    ("config", "found"),
    [
        pytest.param({}, ("0", "2"), id="nothing-recorded"),
        pytest.param({"first_conv": "1", "classifier": "1"}, ("1", "1"), id="recorded"),
        pytest.param({"first_conv": ("gone", "1")}, ("1", "2"), id="first-of-several-that-exists"),
        pytest.param({"first_conv": None, "classifier": "gone"}, ("0", "2"), id="recorded-but-not-there"),
    ],
)
def test_ends_follow_what_the_network_records(config, found):
    assert ends(small(**config)) == found


def test_ends_of_a_network_without_layers_are_an_error():
    with pytest.raises(ValueError, match="no convolution and no linear layer"):
        ends(nn.Sequential(nn.ReLU()))


def test_every_empty_rule_is_reported(model):
    with pytest.raises(ValueError, match=r"prune\.rules\.a\.match='nope'") as caught:
        match_layers(model, rules(a="nope", b=".*", c=".*"), "prune")
    assert "prune.rules.b: left with no layer, later rules take all of its 8" in str(caught.value)


def test_a_rule_without_a_layer_names_near_misses_or_else_the_first_layers():
    with pytest.raises(ValueError, match=r"named like layer1\.0\.conv2, layer1\.0\.conv1"):
        match_layers(timm.create_model("resnet8"), rules(a=r"layer1\.0\.conv"), "prune")
    with pytest.raises(ValueError, match="named like 0, 1, 2"):
        match_layers(small(), rules(a="features"), "prune")


def test_no_rule_matches_no_layer():
    assert match_layers(small(), {}, "prune") == {}


def test_match_modules_takes_modules_of_any_kind_but_not_the_network(model):
    found = match_modules(model, rules(all=".*"), "quantize.outputs")
    assert "" not in found
    assert {"bn1", "layer1.0", "conv1"} <= set(found)


def test_match_modules_leaves_out_what_compressors_added():
    model = small()
    before = list(match_modules(model, rules(all=".*"), "x"))
    attach_mask(model[0])
    attach_input_fake_quantize(model[1], ActivationFakeQuantize(4))
    assert list(match_modules(model, rules(all=".*"), "x")) == before


def test_match_modules_names_its_own_config_path():
    with pytest.raises(ValueError, match=r"^quantize\.outputs\.a\.match='nope'"):
        match_modules(small(), rules(a="nope"), "quantize.outputs")


def test_bad_expression_is_refused():
    with pytest.raises(ValueError, match=r"match='\(': not a regular expression"):
        LayerRule("(")


def test_shared_parameters_are_those_of_more_than_one_module():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    assert shared_parameters(model) == set()
    model[2].weight = model[0].weight
    assert shared_parameters(model) == {model[0].weight}


def test_a_module_used_twice_shares_nothing():
    layer = nn.Linear(2, 2)
    assert shared_parameters(nn.Sequential(layer, layer)) == set()


class Described(nn.Module):
    def __init__(self, **configs):
        super().__init__()
        for name, config in configs.items():
            setattr(self, name, config)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        pytest.param(Described(), (3, 224, 224), id="nothing-stated"),
        pytest.param(Described(pretrained_cfg={"input_size": [1, 8, 8]}), (1, 8, 8), id="pretrained"),
        pytest.param(Described(default_cfg={"input_size": (3, 32, 32)}), (3, 32, 32), id="default"),
        pytest.param(Described(pretrained_cfg={"input_size": None}), (3, 224, 224), id="null"),
    ],
)
def test_own_shape_is_what_the_network_states(network, shape):
    assert own_shape(network) == shape


def test_own_shape_fits_the_network(model):
    assert model(torch.zeros(1, *own_shape(model))).shape == (1, 10)
