"""The pipeline's steps: which stage each runs, from what, and with which groups."""

from pathlib import Path

import pytest

from micronet_cli.stages.pipeline import packaged_stage, steps

MODEL = "model=resnet8"


def stages_of(found):
    return {name: (own.stage.name, own.stage.module.rpartition(".")[2]) for name, own in found.items()}


def test_step_runs_the_stage_it_names(composed):
    config = composed(
        MODEL, "stage.steps.qat=null", "stage.steps.again.stage=prune", "stage.steps.again.groups=[prune]"
    )
    found = steps(config, Path("run"))
    assert stages_of(found) == {"train": ("train", "train"), "prune": ("prune", "train"), "again": ("prune", "train")}
    assert found["again"].name == "again"
    assert found["again"].init_from == "run/2_prune"


def test_step_without_a_stage_is_named_by_itself(composed):
    """As recorded configs of version 0.1.0 have them."""
    config = composed(MODEL, "stage.steps.prune.stage=null", "stage.steps.more.settings.trainer.epochs=2")
    found = steps(config, Path())
    assert stages_of(found)["prune"] == ("prune", "train")
    assert stages_of(found)["more"] == ("more", "train")


def test_dense_step_of_trained_weights_is_an_evaluation(composed):
    found = steps(composed(MODEL, "model.pretrained=true"), Path())
    assert stages_of(found) == {"train": ("eval", "eval"), "prune": ("prune", "train"), "qat": ("qat", "train")}


def test_packaged_stage_is_what_its_yaml_says():
    assert packaged_stage("shrink") == {"name": "shrink", "module": "micronet_cli.stages.shrink", "multiple": 1}
    assert packaged_stage(None, "score") == {"name": "score", "module": "micronet_cli.stages.train"}


def test_settings_fill_only_what_is_null(composed):
    found = steps(composed(MODEL, "optim.lr=0.5"), Path())
    assert [own.optim.lr for own in found.values()] == [0.5, 0.5, 0.5]
    assert [own.trainer.epochs for own in found.values()] == [12, 6, 4]


@pytest.mark.parametrize("step", ["train", "prune"])
def test_unknown_stage_of_a_step_is_a_mistake(mistake, step):
    said = mistake(MODEL, "data=digits", f"stage.steps.{step}.stage=prunne")
    assert f"stage.steps.{step}.stage='prunne': must be train or prune or qat or null" in said


def test_pipeline_takes_weights_once(composed):
    found = steps(composed("model=resnet8", "model.weights=x.pth"), Path())
    assert [own.model.weights for own in found.values()] == ["x.pth", None, None]


def test_pipeline_leaves_out_what_is_off(composed):
    found = steps(composed("quantize=none", "model=resnet8"), Path())
    assert list(found) == ["train", "prune"]
    assert list(steps(composed("stage.steps.train=null", "model=resnet8"), Path())) == ["prune", "qat"]
