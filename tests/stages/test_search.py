"""Guards ``stage=search``: what a trial is told, and the mistakes that are answered before the first trial."""

from types import SimpleNamespace

import hydra
import pytest
from omegaconf import OmegaConf

from micronet_cli import distributed
from micronet_cli.errors import UserError
from micronet_cli.explore.search import Search
from micronet_cli.stages import search as stage
from tests.conftest import TINY

pytest.importorskip("optuna")


@pytest.fixture
def told(monkeypatch):
    """Overrides as Hydra has them -> the overrides that a trial's config is composed of."""

    def make(*overrides, settings):
        context = SimpleNamespace(
            overrides=SimpleNamespace(task=list(overrides)), job=SimpleNamespace(config_name="config")
        )
        composed: list[str] = []

        def compose(_, arguments):
            composed.extend(arguments)
            return OmegaConf.create({"search": {"trials": 3}})

        monkeypatch.setattr(stage.HydraConfig, "get", lambda: context)
        monkeypatch.setattr(hydra, "compose", compose)
        space = {"a": [0, 1]}
        config = stage.trial_config(Search(space=space, stage="score", objectives={"top1": "maximize"}), settings)
        assert config.search is None
        return composed

    return make


def test_trial_is_told_what_was_typed_but_for_the_search(told):
    found = told("stage=search", "search=default", "++search.trials=3", "model=resnet8", "++optim.lr=0.1", settings={})
    assert found == ["stage=score", "model=resnet8", "++optim.lr=0.1"]


def test_trial_s_own_setting_takes_the_place_of_the_typed_one(told):
    found = told("++optim.lr=0.1", "~prune.rules.fc", settings={"optim.lr": 0.2, "quantize": "w4a4"})
    assert found == ["stage=score", "~prune.rules.fc", "++optim.lr=0.2", "quantize=w4a4"]


def test_torchrun_is_told_what_to_do_instead(monkeypatch):
    monkeypatch.setattr(distributed, "started_by_launcher", lambda: True)
    with pytest.raises(UserError, match=r"stage=search: torchrun cannot start it; trainer\.devices=N"):
        stage.check(OmegaConf.create({"search": None}))


def test_search_none_is_a_mistake(mistake):
    assert "search=none: stage=search needs search=default" in mistake("stage=search", *TINY, "search=none")
