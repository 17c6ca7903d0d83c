"""The two methods: an evaluation counts by hand, and images may come in any chunks."""

import math

import pytest
import torch
from torch import nn

from micronet_cli.explore.curvature import Curvature
from micronet_cli.explore.methods import Estimation, Evaluation
from micronet_cli.explore.prefix import Prefix
from micronet_cli.explore.trial import Point, Trial

POINT = Point("1", "sparsity", 0.75)  # of the weights 2, 1 and two zeros, 2 alone is kept
IMAGES = torch.tensor([[1.0, 4.0], [1.0, 0.0]]).reshape(2, 2, 1, 1)
LABELS = torch.tensor([1, 0])


def network():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False)).eval()
    model[1].weight.data = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    return model


def test_evaluation_counts_hits_loss_and_divergence_in_the_mean_over_images():
    trial = Trial(network())
    evaluation = Evaluation(trial, Prefix(trial.model, IMAGES), [POINT])
    for image, label in zip(IMAGES.split(1), LABELS.split(1), strict=True):
        evaluation.add(image, label)
    (row,) = evaluation.rows()
    # The first image's logits go from (2, 4) to (2, 0), the second's stay (2, 0).
    wrong, right = 1 / (1 + math.exp(2)), 1 / (1 + math.exp(-2))
    loss_increase = math.log(right / wrong)
    divergence = wrong * math.log(wrong / right) + right * math.log(right / wrong)
    assert (row["layer"], row["kind"], row["value"]) == ("1", "sparsity", 0.75)
    assert row["top1"] == 50
    assert row["top1_drop"] == 50
    assert row["loss_increase"] == pytest.approx(loss_increase / 2, rel=1e-6)
    assert row["divergence"] == pytest.approx(divergence / 2, rel=1e-6)


def test_estimation_is_the_mean_over_chunks():
    rows = []
    for size in (1, 2):
        trial = Trial(network())
        estimation = Estimation(Curvature(trial, torch.Generator().manual_seed(0), probes=2000), [POINT])
        for images, labels in zip(IMAGES.split(size), LABELS.split(size), strict=True):
            estimation.add(images, labels)
        rows += estimation.rows()
    # Of two classes p (1 - p) d^2 / 2 where the difference of the logits moves by d: here by 4 for half the images.
    p = 1 / (1 + math.exp(2))
    expected = p * (1 - p) * 16 / 2 / 2
    assert [row["divergence"] for row in rows] == pytest.approx([expected, expected], rel=0.05)
    assert rows[0].keys() == {"layer", "kind", "value", "divergence"}
