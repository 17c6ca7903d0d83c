"""Guards ``stage=score``: its files and figures, rules joined to layers, and errors in a user's words."""

import csv
from types import SimpleNamespace

import pytest

from micronet_cli.errors import UserError
from micronet_cli.runs.directory import Run
from micronet_cli.stages import score
from tests.conftest import TINY, metrics_of


def layers_of(run):
    with (run / "layers.csv").open() as file:
        return {row["layer"]: row for row in csv.DictReader(file)}


def test_recipe_is_scored_at_its_final_targets(micronet):
    dense = micronet("stage=score", *TINY)
    pruned = micronet("stage=score", *TINY, "prune=agp", "prune.rules.conv.sparsity=0.5")
    assert metrics_of(pruned)["micronet_score"] < metrics_of(dense)["micronet_score"]
    assert metrics_of(dense)["weight_sparsity"] == 0
    assert 0.3 < metrics_of(pruned)["weight_sparsity"] < 0.6
    assert layers_of(pruned)["layer1.0.conv1"]["prune_rule"] == "conv"
    assert "prune_rule" not in layers_of(dense)["layer1.0.conv1"]
    assert (dense / "score.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """An error -> the job and the network whose scoring raises it."""

    def make(error):
        def raise_it(*_):
            raise error

        monkeypatch.setattr(score, "score_with", raise_it)
        network = SimpleNamespace(model=None, spec=SimpleNamespace(size=(3, 64, 64)), config={"name": "vit"})
        return SimpleNamespace(parts=SimpleNamespace(score=None), run=Run(tmp_path)), network

    return make


def test_value_that_cannot_be_scored_is_a_mistake(broken):
    with pytest.raises(UserError, match=r"^score: no price for x$"):
        score.score_network(*broken(ValueError("no price for x")))


def test_another_assertion_goes_through(broken):
    with pytest.raises(AssertionError, match="a bug"):
        score.score_network(*broken(AssertionError("a bug")))
