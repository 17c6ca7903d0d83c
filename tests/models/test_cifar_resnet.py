"""The CIFAR ResNets are the paper's: sizes, shortcuts, input."""

import pytest
import timm
import torch

from micronet_cli.models.model import InputSpec, Model

# Table 6 of arXiv 1512.03385: 0.27, 0.46, 0.66, 0.85 M.
PARAMETERS = {"resnet20": 269_722, "resnet32": 464_154, "resnet44": 658_586, "resnet56": 853_018}


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items(), ids=PARAMETERS.keys())
def test_cifar_resnets_have_the_papers_size(name, parameters):
    model = Model(name).build()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_shortcut_subsamples_and_pads():
    block = timm.create_model("resnet8").layer2[0]
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.rand(1, 16, 8, 8)
    out = block.eval()(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert out[:, :8].abs().sum() == out[:, 24:].abs().sum() == 0


def test_cifar_resnets_take_the_image_as_it_is():
    spec = InputSpec.of(Model("resnet20").build())
    assert (spec.size, spec.crop_pct) == ((3, 32, 32), 1.0)


@pytest.mark.parametrize("depth", [8, 20, 32, 44, 56])
def test_depth_counts_convolutions_and_the_classifier(depth):
    model = timm.create_model(f"resnet{depth}")
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == depth


def test_layer_names_are_those_that_rules_match():
    names = {name for name, _ in timm.create_model("resnet20").named_modules()}
    assert {"conv1", "bn1", "layer1.0.conv1", "layer2.2.bn2", "layer3.1.conv2", "linear"} <= names


@pytest.mark.parametrize("side", [8, 20, 33])
def test_any_height_and_width_from_eight_up(side):
    model = timm.create_model("resnet8", num_classes=4, in_chans=1).eval()
    assert model(torch.zeros(1, 1, side, side + 3)).shape == (1, 4)


def test_timm_knows_the_classifier_and_the_stem():
    model = timm.create_model("resnet8")
    assert model.get_classifier() is model.linear
    assert model.pretrained_cfg["first_conv"] == "conv1"
    assert model.pretrained_cfg["classifier"] == "linear"


def test_a_subsampling_block_halves_odd_sides_upward():
    block = timm.create_model("resnet8").layer3[0].eval()
    assert block(torch.zeros(1, 32, 9, 7)).shape == (1, 64, 5, 4)
