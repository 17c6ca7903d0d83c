"""BatchNorm as a gain and a shift, and a network without it."""

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from micronet_cli.layers.batch_norm import gain_and_shift, remove_batch_norm
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, attach_output_fake_quantize


def with_statistics(norm, mean, var):
    norm.running_mean.copy_(torch.tensor(mean))
    norm.running_var.copy_(torch.tensor(var))
    return norm.eval()


def test_gain_and_shift_golden_values():
    norm = with_statistics(nn.BatchNorm2d(2, eps=0.0), [2.0, 0.0], [4.0, 0.25])
    norm.weight.data = torch.tensor([3.0, 0.0])
    norm.bias.data = torch.tensor([1.0, 5.0])
    gain, shift = gain_and_shift(norm)
    assert gain.tolist() == [1.5, 0.0]
    assert shift.tolist() == [-2.0, 5.0]
    assert gain.dtype == shift.dtype == torch.float64


def test_gain_and_shift_of_a_batch_norm_without_parameters():
    norm = with_statistics(nn.BatchNorm1d(1, eps=0.0, affine=False), [3.0], [4.0])
    gain, shift = gain_and_shift(norm)
    assert (gain.tolist(), shift.tolist()) == ([0.5], [-1.5])


def test_gain_and_shift_keep_a_channel_without_variance_finite():
    gain, shift = gain_and_shift(with_statistics(nn.BatchNorm2d(1, eps=1e-4), [2.0], [0.0]))
    assert gain.item() == pytest.approx(100)
    assert shift.item() == pytest.approx(-200)


@pytest.mark.parametrize("affine", [True, False])
def test_gain_and_shift_are_what_the_module_computes(affine):
    torch.manual_seed(0)
    norm = with_statistics(nn.BatchNorm2d(3, affine=affine), [0.3, -1.0, 20.0], [2.0, 0.1, 1e-6])
    images = torch.randn(2, 3, 4, 4)
    gain, shift = (values.float().view(-1, 1, 1) for values in gain_and_shift(norm))
    torch.testing.assert_close(gain * images + shift, norm(images), rtol=1e-4, atol=1e-4)


def test_gain_and_shift_leave_no_graph_behind():
    gain, shift = gain_and_shift(nn.BatchNorm2d(2))
    assert not gain.requires_grad
    assert not shift.requires_grad


def network(norm):
    return nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), norm), nn.Flatten())


def test_remove_batch_norm_leaves_the_identity():
    model = network(nn.BatchNorm2d(4))
    remove_batch_norm(model, "0.1")
    assert isinstance(model[0][1], nn.Identity)
    assert "0.1.weight" not in model.state_dict()


def test_remove_batch_norm_keeps_the_activation_that_timm_puts_in_it():
    model = network(BatchNormAct2d(4, act_layer=nn.SiLU))
    activation = model[0][1].act
    remove_batch_norm(model, "0.1")
    assert list(model[0][1]) == [activation]


def test_remove_batch_norm_of_timm_without_an_activation_leaves_the_identity():
    model = network(BatchNormAct2d(4, apply_act=False))
    remove_batch_norm(model, "0.1")
    assert isinstance(model[0][1], nn.Identity)


@pytest.mark.parametrize("training", [True, False])
def test_remove_batch_norm_keeps_the_mode(training):
    model = network(BatchNormAct2d(4)).train(training)
    remove_batch_norm(model, "0.1")
    assert {module.training for module in model.modules()} == {training}


def test_remove_batch_norm_keeps_the_quantiser_of_its_output():
    model = network(nn.BatchNorm2d(4))
    quantizer = ActivationFakeQuantize(2)
    attach_output_fake_quantize(model[0][1], quantizer)
    remove_batch_norm(model, "0.1")
    assert model[0][1].output_fake_quantize is quantizer
    model.train()
    assert model(torch.randn(2, 3, 8, 8)).unique().numel() <= 4
