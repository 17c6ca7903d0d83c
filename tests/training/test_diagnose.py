"""A number that is not finite is found where it was made first."""

from pathlib import Path

import pytest
import torch
from torch import nn

from micronet_cli.training.diagnose import explain_non_finite, first_non_finite, non_finite_source


def test_infinite_activation_names_its_layer():
    class Overflow(nn.Module):
        def forward(self, x):
            return x * float("inf")

    model = nn.Sequential(nn.Linear(2, 2), Overflow(), nn.Linear(2, 2))
    assert first_non_finite(model, torch.ones(1, 2)) == "layer 1"


def test_finite_layers_leave_the_objective():
    assert first_non_finite(nn.Linear(2, 2), torch.ones(1, 2)).startswith("the objective")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_parameter_comes_before_the_layers(value):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[1].bias[0] = value
    assert non_finite_source(model, torch.ones(1, 2)) == "parameter 1.bias"


def test_images_that_are_not_finite_show_at_the_first_layer():
    model = nn.Sequential(nn.Identity(), nn.Linear(2, 2))
    assert non_finite_source(model, torch.full((1, 2), float("nan"))) == "layer 0"


def test_no_hook_is_left_behind():
    model = nn.Sequential(nn.Linear(2, 2))
    first_non_finite(model, torch.ones(1, 2))
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    model(torch.full((1, 2), float("nan")))
    assert calls == [1]


def test_statistics_of_the_batch_are_used_as_in_training():
    """A running variance that is not finite does not show in training, so it is not blamed."""
    model = nn.Sequential(nn.BatchNorm1d(2))
    model[0].running_var.fill_(float("nan"))
    assert first_non_finite(model, torch.randn(4, 2)).startswith("the objective")


def test_the_message_names_step_source_and_ways_out():
    said = explain_non_finite(float("inf"), 7, "layer conv1", Path("last.safetensors"))
    assert said == (
        "trainer: the loss is inf at step 7, first seen in layer conv1; lower optim.lr, or set "
        "trainer.clip_grad_norm; the last checkpoint is last.safetensors"
    )
