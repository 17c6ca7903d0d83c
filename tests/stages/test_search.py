"""Guards ``stage=search``: what a trial is told, and the mistakes that are answered before the first trial."""

import json
from types import SimpleNamespace

import hydra
import pytest
from omegaconf import OmegaConf

from micronet_cli import distributed
from micronet_cli.errors import UserError
from micronet_cli.explore.search import Search
from micronet_cli.runs.outcomes import Outcome
from micronet_cli.stages import search as stage
from tests.conftest import TINY, metrics_of

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
            return OmegaConf.create({"search": {"trials": 3}, "eval": {"split": "test"}})

        monkeypatch.setattr(stage.HydraConfig, "get", lambda: context)
        monkeypatch.setattr(hydra, "compose", compose)
        space = {"a": [0, 1]}
        config = stage.trial_config(Search(space=space, stage="score", objectives={"top1": "maximize"}), settings)
        assert config.search is None
        assert config.eval.split == "val"  # what is reported has no say
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


EVALUATIONS = (
    "stage=search", *TINY, "search.stage=eval", "search.trials=2", "search.space.prune=null", "search.space.seed=[0,1]",
    "search.objectives.micronet_score=null", "search.sampler=RandomSampler",
)  # fmt: skip


def test_val_chooses_and_test_reports(micronet):
    run = micronet(*EVALUATIONS)
    assert metrics_of(run)["chosen_by"] == "val"
    rows = json.loads((run / "summary.json").read_text())
    for row in rows:
        trial = metrics_of(run / str(row["number"]))
        assert (trial["split"], trial["top1"]) == ("val", row["top1"])
        assert row["split"] == "val"
    best = max(row["top1"] for row in rows)
    chosen = [row for row in rows if row["pareto"]]
    assert {row["top1"] for row in chosen} == {best}
    for row in chosen:
        reported = metrics_of(run / "chosen" / str(row["number"]))
        assert (reported["split"], reported["images"]) == ("test", 359)
        assert row["test_top1"] == reported["top1"]


def test_a_split_that_chooses_by_itself_is_not_evaluated_again(micronet):
    run = micronet(*EVALUATIONS, "search.split=test")
    assert metrics_of(run)["chosen_by"] == "test"
    assert metrics_of(run / "0")["split"] == "test"
    assert not (run / "chosen").exists()


def test_mistakes_in_the_reported_split_are_answered_before_the_first_trial(mistake):
    assert "eval.split='tst': must be" in mistake(*EVALUATIONS, "eval.split=tst")


def test_a_chosen_network_that_is_not_seen_from_here_is_named(caplog):
    search = Search({"seed": [0, 1]}, objectives={"top1": "maximize"})
    run = SimpleNamespace(directory="/here")
    job = SimpleNamespace(checked={"search": search, "eval": SimpleNamespace(split="test")}, run=run)
    known = {0: {"test_top1": 90.0}, 1: {}}
    study = SimpleNamespace(search=search, reported=known.__getitem__, home=lambda number, directory: None)
    outcomes = [Outcome(number, [], f"/there/{number}", metrics={"top1": 91.0}) for number in known]
    assert stage._report_chosen(job, study, outcomes, [1, 0]) == {0: {"test_top1": 90.0}}
    assert "trial 1 is not evaluated on test: /there/1 is not seen from here" in caplog.text
