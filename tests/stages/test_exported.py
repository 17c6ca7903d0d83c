"""Accuracy of exported files: what is counted, when a user is warned, and a network that only guesses."""

import json

import pytest
import torch

from micronet_cli.stages.exported import Accuracy, Exported
from tests.conftest import TINY, metrics_of


def accuracy(images, hits, network_hits, equal):
    return Accuracy(images, hits, network_hits, equal)


def test_a_batch_is_counted_by_its_largest_logits():
    found = torch.tensor([[1.0, 0], [0, 1], [1, 0]])
    expected = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    counted = Accuracy()
    counted.add(found, expected, torch.tensor([0, 1, 1]))
    assert (counted.images, counted.hits, counted.network_hits, counted.equal) == (3, 2, 2, 1)


@pytest.mark.parametrize(
    ("counted", "warnings"),
    [
        pytest.param(accuracy(1000, 895, 900, 990), [], id="at both limits"),
        pytest.param(accuracy(1000, 900, 900, 989), ["98.9 % equal predictions"], id="other answers"),
        pytest.param(accuracy(1000, 894, 900, 994), ["0.6 points lost"], id="fewer right"),
    ],
)
def test_limits_of_equal_predictions_and_lost_points(counted, warnings):
    assert counted.warnings() == warnings
    exported = Exported({}, {"model.onnx": {"openvino": counted}}, None)
    assert exported.metrics()["export_warnings"] == [f"model.onnx in openvino: {text}" for text in warnings]
    assert Exported({}, exported.accuracies, "a reason").all_warnings() == ["untrained network: a reason"]


def test_guessing_is_top1_within_three_deviations_of_chance():
    assert accuracy(900, 0, 117, 0).is_guessing(10)  # 90 by chance, with a deviation of 9
    assert not accuracy(900, 0, 118, 0).is_guessing(10)


def test_untrained_network_is_called_that(micronet):
    run = micronet("stage=export", *TINY, "export.weights=false", "export.images=1")
    (warning,) = metrics_of(run)["export_warnings"]
    assert warning.startswith("untrained network: ")
    log = (run / "micronet.log").read_text() if (run / "micronet.log").exists() else ""
    assert "predictions equal" not in log
    report = json.loads((run / "export.json").read_text())["engines"]
    assert report["model.onnx"]["onnxruntime all"]["accuracy"]["images"] == 359


def test_evaluation_can_be_refused_and_needs_data(micronet, mistake):
    run = micronet("stage=export", *TINY, "export.weights=false", "export.images=1", "export.evaluate=false")
    assert "exported_top1" not in metrics_of(run)
    said = mistake("stage=export", "model=resnet8", "export.evaluate=true", "export.images=1")
    assert "data" in said
