"""Guards the evaluation of a chosen network: it is the kept one, on the split that is asked for, and done once."""

import pytest
from omegaconf import OmegaConf

from micronet_cli.errors import UserError
from micronet_cli.stages.chosen import evaluate_chosen, evaluation_config
from tests.conftest import TINY, metrics_of


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    """A network that is pruned and evaluated on val."""
    from micronet_cli.command.cli import main

    run = tmp_path_factory.mktemp("chosen") / "run"
    main(["stage=prune", *TINY, "trainer.max_steps=1", "eval.split=val", f"hydra.run.dir={run}"])
    return run


def test_config_is_the_run_s_own_without_what_the_network_brings(chosen):
    config = evaluation_config(chosen, "test")
    recorded = OmegaConf.load(chosen / "config.yaml")
    assert metrics_of(chosen)["chosen_by"] == "val"
    assert (config.stage.name, config.init_from, config.eval.split) == ("eval", str(chosen), "test")
    assert recorded.prune is not None
    assert config.prune is None
    assert config.data == recorded.data


def test_the_kept_network_is_evaluated_once(chosen, tmp_path):
    metrics = evaluate_chosen(chosen, "test", tmp_path / "test")
    assert (metrics["split"], metrics["images"]) == ("test", 359)
    assert metrics["weight_sparsity"] == metrics_of(chosen)["weight_sparsity"]
    written = (tmp_path / "test" / "metrics.json").stat().st_mtime_ns
    assert evaluate_chosen(chosen, "test", tmp_path / "test") == metrics
    assert (tmp_path / "test" / "metrics.json").stat().st_mtime_ns == written


def test_a_split_that_is_not_there_is_a_mistake(chosen, tmp_path, monkeypatch):
    from micronet_cli.data.datasets import Digits

    monkeypatch.setattr(Digits, "problems", lambda self, splits: ["data.test: missing"])
    with pytest.raises(UserError, match=r"data\.test: missing"):
        evaluate_chosen(chosen, "test", tmp_path / "test")
