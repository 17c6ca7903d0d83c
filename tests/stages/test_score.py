"""Guards ``stage=score``: its files and figures, rules joined to layers, and errors in a user's words."""

import csv
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from micronet_cli.errors import UserError
from micronet_cli.runs.directory import Run
from micronet_cli.stages import score
from tests.conftest import TINY, metrics_of

ROOT = Path(__file__).parents[2]


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


def scored_commands(page):
    """Overrides -> score, of every ``stage=score`` command of a page that ends with a figure."""
    found = {}
    for line in (ROOT / page).read_text().splitlines():
        command = re.fullmatch(r"\s*micronet (stage=score [^#]*?) +(?:#.*: )?(\d\.\d+)", line)
        if command:
            found[command[1]] = command[2]
    return found


IN_DOCS = scored_commands("docs/scoring.md")
IN_README = scored_commands("README.md")


def shown(metrics, figure):
    """The score with as many decimals as ``figure`` has."""
    decimals = len(figure.partition(".")[2])
    return f"{metrics['micronet_score']:.{decimals}f}"


@pytest.mark.parametrize(("command", "figure"), IN_DOCS.items())
def test_commands_of_the_documentation_score_what_stands_beside_them(micronet, command, figure):
    assert shown(metrics_of(micronet(*command.split())), figure) == figure


@pytest.mark.slow
@pytest.mark.parametrize(("command", "figure"), IN_README.items())
def test_commands_of_the_readme_score_what_stands_beside_them(micronet, command, figure):
    assert shown(metrics_of(micronet(*command.split())), figure) == figure


def test_the_recipe_scores_one_figure_in_command_and_table():
    recipe = "stage=score +experiment=micronet2019/efficientnet_b1"
    assert len(IN_DOCS) == 4
    assert len(IN_README) == 4
    assert IN_DOCS[recipe] == f"{float(IN_README[recipe]):.4f}"
    table = (ROOT / "docs" / "scoring.md").read_text()
    assert f"| `tf_efficientnet_b1`, `micronet2019` | official | 700,156 | 374,162,464.5 | {IN_DOCS[recipe]} |" in table


def test_a_fresh_network_is_scored_as_training_would_make_it(micronet):
    arguments = ("model=mobilenetv3_small_050", "data=digits", "data.input_size=32")
    trained = micronet("stage=train", *arguments, "trainer.max_steps=1", "data.batch_size=2")
    score = metrics_of(micronet("stage=score", *arguments))["micronet_score"]
    assert score == metrics_of(trained)["micronet_score"] == pytest.approx(0.0159, abs=5e-5)
    timm_s = metrics_of(micronet("stage=score", "model=mobilenetv3_small_050"))
    assert timm_s["micronet_score"] == pytest.approx(0.2747, abs=5e-5)


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
