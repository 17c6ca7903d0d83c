"""Equalisation leaves what a network computes as it was."""

import copy

import pytest
import timm
import torch
from timm.layers import StdConv2d
from torch import nn

from micronet_cli.compression.quantization.equalization import equalize
from micronet_cli.functional.equalization import input_ranges, output_ranges
from micronet_cli.layers.effective_weight import attach_mask
from micronet_cli.models import cifar_resnet  # noqa: F401  registers its networks
from micronet_cli.trace.chains import chains
from tests.trace.test_batch_norm import random_statistics


def test_two_layers_by_hand():
    first, second = nn.Linear(1, 2), nn.Linear(2, 1, bias=False)
    first.weight.data = torch.tensor([[8.0], [-1.0]])
    first.bias.data = torch.tensor([4.0, 1.0])
    second.weight.data = torch.tensor([[2.0, 4.0]])
    model = nn.Sequential(nn.Flatten(), first, nn.ReLU(), second)
    assert equalize(model, chains(model, (1, 1, 1))) == [("1", "3")]
    assert first.weight.flatten().tolist() == [4, -2]
    assert first.bias.tolist() == [2, 2]
    assert second.weight.tolist() == [[4, 2]]


def test_a_batch_norm_between_takes_the_scale():
    model = random_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)))
    model[0].weight.data[0] *= 50
    kept, images = model[0].weight.clone(), torch.randn(2, 3, 8, 8)
    before = model(images)
    assert equalize(model, chains(model, (3, 8, 8))) == [("0", "3")]
    torch.testing.assert_close(model(images), before, rtol=1e-4, atol=1e-4)
    assert torch.equal(model[0].weight, kept)
    gain = model[1].weight / (model[1].running_var + model[1].eps).sqrt()
    torch.testing.assert_close(output_ranges(kept) * gain.abs(), input_ranges(model[3].weight), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet8", "mobilenetv2_050"])
def test_outputs_stay_in_double_precision(name):
    model = random_statistics(timm.create_model(name, num_classes=4)).double()
    size = (3, 32, 32)
    images = torch.randn(1, *size, dtype=torch.float64)
    with torch.no_grad():
        before = model(images)
        assert len(equalize(model, chains(model, size))) > 1
        torch.testing.assert_close(model(images), before, rtol=1e-8, atol=1e-8)


def test_a_norm_without_weights_is_left_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    before = copy.deepcopy(model.state_dict())
    assert equalize(model, chains(model, (3, 4, 4))) == []
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_pruned_channels_and_masks_stay():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    attach_mask(model[0]).mask[1] = False
    attach_mask(model[2]).mask[:, 2] = False
    images = torch.randn(2, 3, 4, 4)
    before = model(images)
    equalize(model, chains(model, (3, 4, 4)))
    torch.testing.assert_close(model(images), before)
    assert not model[0].weight[1].any()
    assert not model[2].weight[:, 2].any()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_standardised_network_keeps_its_outputs():
    model = timm.create_model("nf_resnet26", num_classes=4).double().eval()
    for name, parameter in model.named_parameters():
        if name.endswith("skipinit_gain"):
            nn.init.uniform_(parameter, 0.5, 1.5)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        before = model(images)
        equalize(model, chains(model, (3, 64, 64)))
        torch.testing.assert_close(model(images), before, rtol=1e-8, atol=1e-8)


def test_the_norm_behind_a_standardised_layer_takes_the_scale():
    model = nn.Sequential(StdConv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    model = random_statistics(model).double()
    images = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    before = model(images)
    assert equalize(model, chains(model, (3, 4, 4))) == [("0", "3")]
    torch.testing.assert_close(model(images), before)
