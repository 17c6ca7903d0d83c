"""Guards ``stage=pipeline``: what its steps begin with, what they leave, and what it says of them."""

import pytest
import torch

from micronet_cli import checkpoint
from micronet_cli.models.model import Model
from tests.conftest import TINY, metrics_of


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
