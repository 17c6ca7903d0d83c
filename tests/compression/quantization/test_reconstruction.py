"""A layer's error by hand, and what a step of learning is judged by."""

import pytest
import torch

from micronet_cli.compression.quantization.layer_output import Affine
from micronet_cli.compression.quantization.reconstruction import Reconstruction, mean_square


def test_mean_square_is_of_output_vectors():
    assert mean_square(torch.tensor([[1.0, 2.0], [2.0, 3.0]])).item() == 9  # (1, 2) and (2, 3): 5 and 13


def test_error_is_the_mean_squared_distance_of_the_chosen_rows():
    inputs = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    judged = Reconstruction(inputs, torch.zeros(2, 2), Affine(torch.ones(1, 1), torch.ones(1, 1)))
    weight = torch.tensor([[0.0, 1.0], [1.0, 2.0]])
    # Rows (1, 2) and (2, 3): 5 and 13.
    assert judged.error(weight).item() == 9
    assert judged.error(weight, slice(1, 2)).item() == 13
    assert judged.error(weight, slice(0, 1)).item() == 5


def random_layer(groups, activation=None):
    torch.manual_seed(0)
    inputs = torch.randn(groups, 40, 5)
    normalised = Affine(torch.rand(6, 1) - 0.5, torch.randn(6, 1))
    return Reconstruction(inputs, torch.randn(6, 40), normalised, activation)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_an_affine_layer_is_judged_at_all_rows(groups):
    judged = random_layer(groups)
    loss = judged.loss(torch.randn(6, 5), batch_size=7)
    weight = torch.randn(6, 5, requires_grad=True)
    torch.testing.assert_close(loss(weight, 3), judged.error(weight))
    (made,) = torch.autograd.grad(loss(weight, 3), weight)
    (expected,) = torch.autograd.grad(judged.error(weight), weight)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)


def test_behind_an_activation_function_steps_take_the_next_rows():
    judged = random_layer(2, torch.relu)
    weight = torch.randn(6, 5)
    loss = judged.loss(weight, batch_size=16)  # 40 rows: 2 whole batches
    firsts = [slice(0, 16), slice(16, 32), slice(0, 16)]
    assert [loss(weight, step) for step in range(3)] == [judged.error(weight, rows) for rows in firsts]
    assert judged.loss(weight, batch_size=99)(weight, 5) == judged.error(weight)
