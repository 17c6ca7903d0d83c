"""What is said of a number that is not finite: where it was made first, and the ways out."""

from pathlib import Path

import pytest
import torch
from torch import nn

from micronet_cli.layers.effective_weight import attach_effective_weight
from micronet_cli.training.diagnose import explain_loss, explain_output, explain_values, source_in_training

LAST = Path("last.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
def test_a_parameter_comes_before_the_layers(value, compressed):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[1].weight[0, 0] = value
    if compressed:
        attach_effective_weight(model[1])
    assert source_in_training(model, torch.ones(1, 2)) == "parameter 1.weight"


def test_statistics_of_the_batch_are_used_as_in_training():
    """A running variance that is not finite does not show in training, so it is not blamed."""
    model = nn.Sequential(nn.BatchNorm1d(2))
    model[0].running_var.fill_(float("nan"))
    assert source_in_training(model, torch.randn(4, 2)).startswith("the objective")


def test_a_loss_is_told_with_step_source_and_ways_out():
    assert explain_loss(float("inf"), 7, "layer conv1", LAST) == (
        "trainer: the loss is inf at step 7, first seen in layer conv1; lower optim.lr, or set "
        "trainer.clip_grad_norm; the last checkpoint is last.safetensors"
    )


def test_gathered_values_are_told_with_their_layer():
    assert explain_values("pruning scores", "conv1", 7, LAST) == (
        "trainer: the pruning scores of layer conv1 are not finite at step 7; lower optim.lr, or set "
        "trainer.clip_grad_norm; the last checkpoint is last.safetensors"
    )


def test_an_output_is_told_with_the_precision_that_may_be_too_small():
    assert explain_output("eval", "fp16", "layer conv1") == (
        "eval.amp=fp16: the output is not finite, first in layer conv1; use bf16 or none, or a network that is finite "
        "without it"
    )
    assert explain_output("trainer", "none", "layer conv1") == (
        "trainer: the output is not finite, first in layer conv1; train with a lower optim.lr, or give another "
        "checkpoint"
    )
