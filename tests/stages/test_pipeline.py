"""The pipeline's steps: which stage each runs, from what, and with which groups."""

from pathlib import Path

import pytest
import torch

from micronet_cli import checkpoint
from micronet_cli.models.model import Model
from micronet_cli.stages.pipeline import packaged_stage, steps
from tests.conftest import TINY, metrics_of

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


@pytest.fixture
def of_other_classes(tmp_path):
    """Weights of 7 classes, for data of 10."""
    path = tmp_path / "w.pth"
    torch.save({"state_dict": Model("resnet8").build(7).state_dict()}, path)
    return path


def test_first_step_trains_the_classifier_where_the_weights_have_other_classes(micronet, of_other_classes):
    arguments = [*TINY, f"model.weights={of_other_classes}", "trainer.max_steps=1", "stage.steps.qat=null"]
    run = micronet(*arguments)
    assert metrics_of(run / "1_train")["stage"] == "train"
    assert metrics_of(run / "2_prune")["stage"] == "prune"
    log = (run / "micronet.log").read_text()
    assert log.count("model.weights: the classifier has 7 classes, the data 10: a new one is trained") == 1
    again = micronet(*arguments, "resume=true", directory=run)
    assert metrics_of(again)["status"] == "completed"


def test_first_step_evaluates_weights_that_have_the_data_s_classes(micronet, tmp_path):
    path = tmp_path / "w.pth"
    torch.save(Model("resnet8").build(10).state_dict(), path)
    run = micronet(*TINY, f"model.weights={path}", "stage.steps.prune=null", "stage.steps.qat=null")
    assert metrics_of(run / "1_train")["stage"] == "eval"
    assert (run / "micronet.log").read_text().count("resnet8: 10 classes (data)") == 1


def test_step_that_starts_from_weights_trains_the_classifier(micronet, of_other_classes):
    weights = f"model.weights={of_other_classes}"
    run = micronet("stage=prune", *TINY, weights, "trainer.max_steps=1")
    assert checkpoint.load(str(run)).model.linear.out_features == 10
