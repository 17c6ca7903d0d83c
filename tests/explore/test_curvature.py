"""The estimate follows the divergence that it stands for."""

import pytest
import torch

from micronet_cli.explore.curvature import Curvature
from micronet_cli.explore.trial import Trial
from micronet_cli.functional.divergence import divergence
from micronet_cli.models import cifar_resnet  # noqa: F401  registers resnet8
from tests.explore.test_sensitivity import images, network


def test_estimate_is_the_divergence_of_small_changes():
    trial = Trial(network())
    trial.watch_inputs([images()])
    points = trial.points([0.05], [7], [8])
    estimated = Curvature(trial, torch.Generator().manual_seed(0), probes=64).divergences(images(), points)
    for point, estimate in zip(points, estimated.tolist(), strict=True):
        with torch.no_grad(), trial.changed(point):
            exact = divergence(network()(images()).double(), trial.model(images()).double()).sum().item()
        assert estimate == pytest.approx(exact, rel=0.3), point
