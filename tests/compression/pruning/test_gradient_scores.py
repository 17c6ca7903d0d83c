"""Scores that gradients leave: golden sums, when they are gathered, and copies that stay apart."""

import copy

import pytest
import timm.layers
import torch
from torch import nn

from micronet_cli.compression.pruning import gradient_scores
from micronet_cli.compression.pruning.gradient_scores import (
    DENSE,
    SCORES,
    accumulate,
    attach_buffer,
    averaged,
    buffer_of,
    watch_dense_gradient,
)
from micronet_cli.functional.pruning import Movement, Taylor
from micronet_cli.layers.effective_weight import attach_mask, original_weight
from micronet_cli.layers.finite import NotFiniteValues


def layer(name, weight=((1.0, -2.0), (3.0, 0.0))):
    made = nn.Linear(2, 2, bias=False)
    made.weight.data = torch.tensor(weight)
    attach_mask(made)
    attach_buffer(made, name)
    return made


def backward(made, inputs=(1.0, 2.0)):
    made(torch.tensor([inputs])).sum().backward()


def test_buffers_start_at_zero_in_float32_whatever_the_weight():
    made = nn.Conv2d(3, 4, 3).double()
    attach_mask(made)
    attach_buffer(made, SCORES)
    scores = buffer_of(made, SCORES)
    assert (scores.dtype, scores.shape) == (torch.float32, made.weight.shape)
    assert not scores.any()


@pytest.mark.parametrize(
    ("criterion", "wanted"),
    [
        pytest.param(Movement(), [[-1.0, 4.0], [-3.0, 0.0]], id="movement"),
        pytest.param(Taylor(decay=1.0), [[1.0, 4.0], [3.0, 0.0]], id="taylor"),
    ],
)
def test_golden_scores_of_one_gradient(criterion, wanted):
    made = layer(SCORES)
    accumulate(made, criterion)
    backward(made)
    assert buffer_of(made, SCORES).tolist() == wanted


@pytest.mark.parametrize("norm", [None, nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_a_computed_weight_is_ranked_by_its_own_gradient(norm):
    """d sum(y) / d w of y = w x is x, whatever the weight is made of."""
    torch.manual_seed(0)
    made = timm.layers.StdConv2d(2, 3, 1) if norm is None else norm(nn.Conv2d(2, 3, 1))
    attach_mask(made).mask[0, 1] = False
    attach_buffer(made, SCORES)
    handle = accumulate(made, Taylor(decay=1.0))
    inputs = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1)
    made.eval()(inputs).sum().backward()
    assert not buffer_of(made, SCORES).any()
    copied = copy.deepcopy(made.train())
    weight = made.weight.detach()
    made(inputs).sum().backward()
    wanted = (weight * inputs).abs()
    torch.testing.assert_close(buffer_of(made, SCORES), wanted, rtol=1e-3, atol=1e-6)
    assert buffer_of(made, SCORES)[0, 1] == 0
    assert not buffer_of(copied, SCORES).any()
    handle.remove()
    made(inputs).sum().backward()
    torch.testing.assert_close(buffer_of(made, SCORES), wanted, rtol=1e-3, atol=1e-6)


def test_scores_stay_once_the_handle_is_removed():
    made = layer(SCORES)
    handle = accumulate(made, Movement())
    backward(made)
    handle.remove()
    backward(made)
    assert buffer_of(made, SCORES).tolist() == [[-1.0, 4.0], [-3.0, 0.0]]


def test_a_frozen_weight_has_no_handle():
    made = layer(SCORES)
    original_weight(made).requires_grad_(False)
    assert accumulate(made, Movement()) is None


def test_dense_gradients_add_up_behind_the_mask():
    made = layer(DENSE)
    made.parametrizations.weight[0].mask[0, 0] = False
    watch_dense_gradient(made)
    backward(made)
    backward(made, (float("inf"), 1.0))
    # The weight's own gradient is masked; an infinite one counts as none.
    assert buffer_of(made, DENSE).tolist() == [[1.0, 3.0], [1.0, 3.0]]


def test_dense_gradients_are_gathered_in_training_alone():
    made = layer(DENSE)
    watch_dense_gradient(made)
    backward(made.eval())
    assert not buffer_of(made, DENSE).any()


def test_copies_gather_dense_gradients_of_their_own():
    made = layer(DENSE)
    watch_dense_gradient(made)
    copied = copy.deepcopy(made)
    backward(copied)
    assert buffer_of(copied, DENSE).any()
    assert not buffer_of(made, DENSE).any()


def test_scores_are_averaged_over_processes(monkeypatch):
    made = layer(SCORES)
    buffer_of(made, SCORES).fill_(3.0)
    assert averaged(made, SCORES).unique().tolist() == [3.0]
    monkeypatch.setattr(gradient_scores, "world_size", lambda: 2)
    monkeypatch.setattr(gradient_scores, "sum_over_ranks", lambda values: values.add_(1.0))
    assert averaged(made, SCORES).unique().tolist() == [2.0]
    assert buffer_of(made, SCORES).unique().tolist() == [2.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_cannot_be_ranked_by(value):
    made = layer(SCORES)
    buffer_of(made, SCORES)[0, 0] = value
    with pytest.raises(NotFiniteValues, match="pruning scores of a layer are not finite") as caught:
        averaged(made, SCORES)
    assert caught.value.layer is made
