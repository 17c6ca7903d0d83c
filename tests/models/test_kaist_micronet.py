"""The network of KAIST AI's 2019 entry: the sizes of its checkpoint, and the gate that two strides leave out."""

import pytest
import torch
from torch import nn

from micronet_cli.models.kaist_micronet import Block
from micronet_cli.models.model import InputSpec, Model


@pytest.fixture(scope="module")
def model():
    return Model("kaist_micronet").build()


def test_weights_are_as_many_as_in_the_entered_checkpoint(model):
    """Checkpoint_ver1/micronet_v1_pr_60.t7: 450,456 weights of convolutions and the classifier."""
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sum(layer.weight.numel() for layer in layers) == 450_456
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 100)


def test_three_blocks_halve_the_sides(model):
    strides = [block.stride for block in model.layers]
    assert strides.count(2) == 3
    assert len(strides) == 16


def test_a_block_of_stride_two_does_not_apply_its_gate():
    block = Block(8, 8, stride=2).eval()
    x = torch.rand(1, 8, 4, 4)
    before = block(x)
    nn.init.constant_(block.fc2.bias, -100.0)
    assert torch.equal(block(x), before)


def test_a_closed_gate_leaves_the_shortcut():
    block = Block(8, 8, stride=1).eval()
    nn.init.constant_(block.fc2.bias, -1e4)
    x = torch.rand(1, 8, 4, 4)
    assert torch.equal(block(x), x)


def test_timm_knows_the_input_the_stem_and_the_classifier(model):
    assert InputSpec.of(model).size == (3, 32, 32)
    assert model.get_classifier() is model.linear
    assert model.pretrained_cfg["first_conv"] == "conv1"
