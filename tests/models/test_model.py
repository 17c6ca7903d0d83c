"""The door to timm: a network by name, its arguments and its input."""

import json
import logging
import urllib.error
from dataclasses import asdict

import pytest
import torch

from micronet_cli.errors import UserError
from micronet_cli.models import model as door
from micronet_cli.models.classifier import OtherClasses
from micronet_cli.models.model import InputSpec, Model, hub_in_reach, untrained


def test_unknown_argument_is_an_error():
    with pytest.raises(UserError, match=r"model\.args"):
        Model("resnet20", args={"nonsense": 1}).build()


def test_an_unknown_name_is_answered_with_near_misses():
    with pytest.raises(UserError, match=r"model=resnet21: no such network.*resnet20"):
        Model("resnet21")


def test_weights_come_from_one_place():
    with pytest.raises(ValueError, match=r"pretrained=True: weights are given too"):
        Model("resnet8", weights="w.pth", pretrained=True)


def test_an_average_needs_a_file():
    with pytest.raises(ValueError, match=r"^ema=True: averaged weights come from a file; give weights=<file> too"):
        Model("resnet8", ema=True)


def test_a_config_without_weights_says_nothing_of_them():
    config = {"name": "resnet8", "weights": "w.pth", "ema": True, "args": {"in_chans": 1}}
    plain = {"name": "resnet8", "weights": None, "pretrained": False, "args": {"in_chans": 1}}
    assert untrained(config) == plain


@pytest.fixture
def pretrained(tmp_path, monkeypatch):
    """A network whose weights of 10 classes timm takes for the hub's."""
    path = tmp_path / "hub.pth"
    torch.save(Model("resnet8").build().state_dict(), path)
    monkeypatch.setattr(door, "hub_in_reach", lambda: True)
    return Model("resnet8", pretrained=True, args={"pretrained_cfg_overlay": {"file": str(path)}})


def test_a_classifier_of_the_hub_is_replaced_only_where_it_is_trained(pretrained, caplog):
    assert pretrained.build(10, asker="data").linear.out_features == 10
    with pytest.raises(
        OtherClasses, match=r"^model\.pretrained=true: the classifier has 10 classes, the data 4; stage="
    ):
        pretrained.build(4, asker="data")
    with caplog.at_level(logging.INFO, "micronet_cli"):
        assert pretrained.build(4, asker="data", new_classifier=True).linear.out_features == 4
    said = [record.message for record in caplog.records if record.name.startswith("micronet_cli")]
    assert said == ["model.pretrained: the classifier has 10 classes, the data 4: a new one is trained"]


CLASSES = {"the network's own": (None, None, 10), "the data's": (None, 4, 4), "given": (7, 4, 7)}


@pytest.mark.parametrize(("own", "of_data", "expected"), CLASSES.values(), ids=CLASSES.keys())
def test_the_classifier_has_as_many_classes_as_given_or_as_the_data(own, of_data, expected):
    model = Model("resnet8", num_classes=own).build(of_data)
    assert model.linear.out_features == expected


def test_arguments_reach_the_constructor_and_the_network_evaluates():
    model = Model("resnet8", args={"in_chans": 1}).build()
    assert model.conv1.in_channels == 1
    assert not model.training


def test_the_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=f"{tmp_path}/w.pth.*no such file"):
        Model("resnet8", weights="~/w.pth").build()


def test_weights_of_the_hub_that_is_out_of_reach_are_one_error(monkeypatch):
    monkeypatch.setattr(door, "hub_in_reach", lambda: False)
    monkeypatch.setattr(door.huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    def unreachable(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(door.timm, "create_model", unreachable)
    with pytest.raises(UserError, match=r"^model\.pretrained=true: the weights of resnet18 cannot .*model\.weights"):
        Model("resnet18", pretrained=True).build()
    assert door.huggingface_hub.constants.HF_HUB_OFFLINE is True


def test_an_error_of_a_network_without_the_hub_is_not_hidden(monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(door.timm, "create_model", broken)
    with pytest.raises(ZeroDivisionError):
        Model("resnet8").build()


ANSWERS = {
    "refused": (urllib.error.HTTPError("hub", 403, "no", None, None), True),
    "no route": (OSError("no route"), False),
    "no name": (urllib.error.URLError("no name"), False),
}


@pytest.mark.parametrize(("error", "in_reach"), ANSWERS.values(), ids=ANSWERS.keys())
def test_a_hub_that_answers_at_all_is_in_reach(monkeypatch, error, in_reach):
    def answer(*_, **__):
        raise error

    monkeypatch.setattr("urllib.request.urlopen", answer)
    assert hub_in_reach() is in_reach


def test_the_input_is_what_timm_says_at_another_side():
    model = Model("resnet18").build()
    spec = InputSpec.of(model)
    assert (spec.size, spec.crop_pct, spec.mean) == ((3, 224, 224), 0.95, (0.485, 0.456, 0.406))
    assert InputSpec.of(model, side=64).size == (3, 64, 64)


def test_an_input_comes_back_from_json():
    spec = InputSpec((1, 8, 8), (0.5,), (0.25,), crop_pct=0.9)
    assert InputSpec.from_dict(json.loads(json.dumps(asdict(spec)))) == spec


STATISTICS = {
    1: ((0.4490,), (0.2260,)),
    2: ((0.4490, 0.5), (0.2260, 0.5)),
    3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    4: ((0.485, 0.456, 0.406, 0.5), (0.229, 0.224, 0.225, 0.5)),
}


@pytest.mark.parametrize("channels", STATISTICS)
def test_the_input_has_the_channels_that_the_network_was_built_with(channels):
    mean, std = STATISTICS[channels]
    spec = InputSpec.of(Model("resnet8", args={"in_chans": channels}).build(2))
    assert spec.size == (channels, 32, 32)
    assert spec.mean == pytest.approx(mean)
    assert spec.std == pytest.approx(std, abs=1e-4)
    assert InputSpec.of(Model("resnet8").build(2)).size == (3, 32, 32)
