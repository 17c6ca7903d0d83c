"""Guards ``--cfg job``: every key of every group shows, those that ``auto`` stands for too."""

from pathlib import Path

import pytest
import yaml

from micronet_cli.command.cli import main
from micronet_cli.paths import CONF

SAVED = next((Path(__file__).parents[1] / "saved").rglob("*.safetensors"))


@pytest.fixture
def shown(capsys):
    """Arguments beside ``--cfg job`` -> what is printed, as YAML."""

    def call(*arguments):
        main(["--cfg", "job", *arguments])
        return yaml.safe_load(capsys.readouterr().out)

    return call


def keys_of(group, option):
    return set(yaml.safe_load((CONF / group / f"{option}.yaml").read_text()))


def test_what_auto_stands_for_is_shown_with_every_key(shown):
    config = shown("model.ema=true")
    assert set(config["model"]) == keys_of("model", "timm")
    assert (config["model"]["name"], config["model"]["ema"]) == ("resnet20", True)
    assert set(config["data"]) == keys_of("data", "digits")
    assert "hydra" not in config
    assert config["name"] == "${stage.name}"


def test_a_stage_without_data_shows_none(shown):
    assert set(shown("stage=score")["data"]) == keys_of("data", "no_images")


def test_the_network_and_data_of_init_from_are_shown(shown):
    config = shown("stage=eval", f"init_from={SAVED}", "data.batch_size=7")
    assert config["model"]["name"].startswith("resnet")
    assert config["data"]["batch_size"] == 7
    assert config["data"]["_target_"].startswith("micronet_cli.data.")


def test_chosen_groups_are_shown_as_they_are(shown):
    config = shown("model=resnet8", "data=cifar10")
    assert config["model"]["name"] == "resnet8"
    assert set(config["data"]) == keys_of("data", "cifar10")


def test_a_package_alone_is_shown_and_interpolations_are_resolved_on_demand(shown):
    assert shown("--package", "model")["name"] == "resnet20"
    assert shown("--package", "seed", "--resolve") == 0
    assert shown("--resolve")["name"] == "pipeline"


MISTAKES = {
    "init_from": ("init_from=/nowhere", "init_from='/nowhere': no such file"),
    "option": ("prune=agpp", "prune=agpp: no such option; did you mean agp"),
    "package": ("--package=modle", "--package modle: there is nothing"),
}


@pytest.mark.parametrize(("argument", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_answered(argument, said, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--cfg", "job", argument])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
