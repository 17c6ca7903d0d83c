"""Guards what ``model=auto`` and ``data=auto`` become: what the start was trained with, or the defaults."""

from typing import Any, NamedTuple

import pytest
from omegaconf import OmegaConf

from micronet_cli import checkpoint
from micronet_cli.errors import UserError
from micronet_cli.stages.inherit import DEFAULT_MODEL, inherited

HEADER = {
    "model": {"_target_": "micronet_cli.models.model.Model", "name": "resnet8", "num_classes": 3},
    "data": {"_target_": "micronet_cli.data.datasets.ImageFolder", "input_size": 24},
}


@pytest.fixture
def start(monkeypatch):
    """A start whose header is ``HEADER``; its path."""
    monkeypatch.setattr(checkpoint, "resolve", lambda path, *_: path)
    monkeypatch.setattr(checkpoint, "read_header", lambda *_, **__: HEADER)
    return "runs/a"


def config_of(init_from=None, model=None, data=None):
    return OmegaConf.create({"init_from": init_from, "model": model or {}, "data": data or {}})


def test_auto_without_a_start_is_the_default():
    found = inherited(config_of())
    assert found.model == DEFAULT_MODEL
    assert found.data._target_.endswith("Digits")


@pytest.mark.parametrize(
    ("stage", "data"),
    [
        pytest.param("score", "NoImages", id="score"),
        pytest.param("export", "NoImages", id="export"),
        pytest.param("train", "Digits", id="train"),
    ],
)
def test_a_stage_that_needs_no_data_has_none_unless_some_is_chosen(composed, stage, data):
    assert inherited(composed(f"stage={stage}", "data.input_size=16")).data._target_.endswith(f".{data}")
    assert inherited(composed(f"stage={stage}", "data=digits")).data._target_.endswith(".Digits")


def test_auto_with_a_start_is_the_start_s(start):
    found = inherited(config_of(start))
    assert (found.model, found.data) == (HEADER["model"], HEADER["data"])


def test_a_network_of_the_hub_brings_no_data(monkeypatch):
    monkeypatch.setattr(checkpoint, "beginning", lambda path, trust: {"model": HEADER["model"]})
    found = inherited(config_of("local-dir:a"))
    assert found.model == HEADER["model"]
    assert found.data._target_ == "micronet_cli.data.datasets.NoImages"


def test_keys_beside_auto_refine_what_is_inherited(start):
    found = inherited(config_of(start, model={"drop": 0.1}, data={"input_size": 32}))
    assert found.model == HEADER["model"] | {"drop": 0.1}
    assert found.data == HEADER["data"] | {"input_size": 32}


def test_a_chosen_option_stays_as_it_is(start):
    chosen = {"_target_": "micronet_cli.data.datasets.Digits"}
    found = inherited(config_of(start, data=chosen))
    assert found.data == chosen
    assert found.model == HEADER["model"]


def test_the_given_config_and_the_defaults_are_left_alone(start):
    config = config_of(start, model={"name": "resnet20"})
    assert inherited(config).model.name == "resnet20"
    assert config.model == {"name": "resnet20"}
    assert HEADER["model"]["name"] == "resnet8"
    inherited(config_of(model={"name": "resnet8"}))
    assert DEFAULT_MODEL["name"] == "resnet20"


def test_interpolations_are_resolved():
    config = config_of(model={"name": "${init_from}"})
    assert inherited(config).model.name is None


def test_weights_without_a_start_stay():
    assert inherited(config_of(model={"weights": "x.pth"})).model.weights == "x.pth"


class Mistake(NamedTuple):
    value: Any
    said: str


WEIGHTS = {
    "weights": Mistake({"weights": "x.pth"}, "model.weights=x.pth: init_from brings its weights; take one of them"),
    "pretrained": Mistake(
        {"pretrained": True}, "model.pretrained=True: init_from brings its weights; take one of them"
    ),
}


@pytest.mark.parametrize("case", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_weights_beside_a_start_are_a_mistake(start, case):
    with pytest.raises(UserError) as caught:
        inherited(config_of(start, model=case.value))
    assert str(caught.value) == case.said


@pytest.mark.parametrize("nothing", [None, "", False], ids=repr)
def test_weights_that_are_none_are_no_mistake(start, nothing):
    assert inherited(config_of(start, model={"weights": nothing})).model.name == "resnet8"


STARTS = {
    "a number": Mistake(7, "init_from=7: must be a path, as ./7"),
    "a list": Mistake(["a"], "init_from=['a']: must be a path"),
    "nothing there": Mistake("/nowhere/a", "init_from='/nowhere/a': no such file or directory"),
}


@pytest.mark.parametrize("case", STARTS.values(), ids=STARTS.keys())
def test_a_start_that_is_no_path_is_a_mistake(case):
    with pytest.raises(UserError) as caught:
        inherited(config_of(case.value))
    assert str(caught.value).startswith(case.said)
