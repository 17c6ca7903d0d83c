import pytest
import timm

from micronet_cli.layers.rules import LayerRule, compressible_layers, ends, match_layers
from micronet_cli.models import cifar_resnet  # noqa: F401


@pytest.fixture(scope="module")
def model():
    return timm.create_model("resnet8")


def rules(**patterns):
    return {name: LayerRule(match) for name, match in patterns.items()}


def test_last_matching_rule_wins(model):
    found = match_layers(model, rules(all=".*", first=r"layer1\..*"), "prune")
    assert found["layer1.0.conv1"][0] == "first"
    assert found["conv1"][0] == "all"


def test_match_is_of_the_whole_name(model):
    assert list(match_layers(model, rules(stem="conv1"), "prune")) == ["conv1"]


def test_stem_and_classifier_have_names(model):
    found = match_layers(model, rules(rest="(?!{stem}$|{classifier}$).*"), "prune")
    assert set(found) == set(compressible_layers(model)) - {"conv1", "linear"}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("tf_efficientnet_b0", ("conv_stem", "classifier")),
        ("mobilenetv3_small_050", ("conv_stem", "classifier")),
        ("vit_tiny_patch16_224", ("patch_embed.proj", "head")),
        ("resnet18", ("conv1", "fc")),
    ],
)
def test_ends_of_timm_networks(name, wanted):
    assert ends(timm.create_model(name)) == wanted


def test_every_empty_rule_is_reported(model):
    with pytest.raises(ValueError, match=r"prune\.rules\.a\.match='nope'") as caught:
        match_layers(model, rules(a="nope", b=".*", c=".*"), "prune")
    assert "prune.rules.b: left with no layer" in str(caught.value)


def test_bad_expression_is_refused():
    with pytest.raises(ValueError, match="not a regular expression"):
        LayerRule("(")
