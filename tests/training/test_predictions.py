"""Guards what is noted of every image: confidence, order over processes, and the most confident of some."""

import pytest
import torch

from micronet_cli.training import predictions
from micronet_cli.training.predictions import Predictions, Recorder


class Loader:
    """One that gave this process the images 4, 1 and 3."""

    def visited(self, images):
        return [4, 1, 3][:images]


def recorded():
    recorder = Recorder()
    recorder(torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([1, 1]))
    recorder(torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
    return recorder


def test_predictions_come_in_the_order_of_the_split():
    found = recorded().predictions(Loader())
    assert found.images.tolist() == [1, 3, 4]
    assert found.labels.tolist() == [1, 0, 1]
    assert found.predicted.tolist() == [0, 0, 1]
    assert found.confidence.tolist() == pytest.approx([0.731059, 0.5, 0.880797], abs=1e-6)
    assert found.correct.tolist() == [False, True, True]


def test_predictions_of_all_processes_are_joined(monkeypatch):
    other = Predictions(torch.tensor([2]), torch.tensor([7]), torch.tensor([7]), torch.tensor([0.25]))
    monkeypatch.setattr(predictions, "gather", lambda own: [own, other])
    found = recorded().predictions(Loader())
    assert found.images.tolist() == [1, 2, 3, 4]
    assert found.labels.tolist() == [1, 7, 0, 1]


def test_the_most_confident_come_first_and_of_equal_ones_the_earlier():
    confidence = torch.tensor([0.5, 0.9, 0.5, 0.7])
    found = Predictions(torch.arange(4), torch.zeros(4), torch.zeros(4), confidence)
    assert found.most_confident(torch.tensor([True, False, True, True])) == [3, 0, 2]
    assert found.most_confident(torch.zeros(4, dtype=torch.bool)) == []
