"""Blocks: where a network is cut, what each is called with, and networks that have none."""

from typing import NamedTuple

import pytest
import timm
import torch
from torch import nn

from micronet_cli.models import cifar_resnet  # noqa: F401  registers it
from micronet_cli.trace.blocks import blocks


class Expected(NamedTuple):
    """The first blocks of a network, and how many there are."""

    size: int
    count: int
    first: dict[str, list[str]]


NETWORKS = {
    "resnet20": Expected(
        32, 9, {"layer1.0": ["layer1.0.conv1", "layer1.0.conv2"], "layer1.1": ["layer1.1.conv1", "layer1.1.conv2"]}
    ),
    "tf_efficientnet_lite0": Expected(
        32,
        16,
        {
            "blocks.0.0": ["blocks.0.0.conv_dw", "blocks.0.0.conv_pw"],
            "blocks.1.0": ["blocks.1.0.conv_pw", "blocks.1.0.conv_dw", "blocks.1.0.conv_pwl"],
        },
    ),
    "vit_tiny_patch16_224": Expected(
        224,
        12,
        {"blocks.0": ["blocks.0.attn.qkv", "blocks.0.attn.proj", "blocks.0.mlp.fc1", "blocks.0.mlp.fc2"]},
    ),
    "convnext_atto": Expected(
        64,
        12,
        {
            "stages.0.blocks.0": [
                "stages.0.blocks.0.conv_dw", "stages.0.blocks.0.mlp.fc1", "stages.0.blocks.0.mlp.fc2",
            ],
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_of_known_networks(name):
    expected = NETWORKS[name]
    found = blocks(timm.create_model(name), (3, expected.size, expected.size))
    assert len(found) == expected.count
    first = {block.name: list(block.layers) for block in found[: len(expected.first)]}
    assert first == expected.first


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(2, 2, 1)
        self.two = nn.Conv2d(2, 2, 1)

    def forward(self, x, double=False, mask=None):
        out = x + self.two(self.one(x).relu())
        return 2 * out if double else out


class Network(nn.Module):
    """A stem and a residual block, called as ``call`` says."""

    def __init__(self, call):
        super().__init__()
        self.stem = nn.Conv2d(2, 2, 1)
        self.block = Residual()
        self.call = call

    def forward(self, x):
        return self.call(self.block, self.stem(x))


def test_other_arguments_go_along():
    model = Network(lambda block, x: block(x, True, mask=None))
    (block,) = blocks(model, (2, 4, 4))
    x = torch.randn(1, 2, 4, 4)
    assert torch.equal(block.run(model, x), model.block(x, double=True))
    assert not torch.equal(block.run(model, x), model.block(x))


def test_an_input_by_name_is_an_input():
    model = Network(lambda block, x: block(x=x))
    (block,) = blocks(model, (2, 4, 4))
    x = torch.randn(1, 2, 4, 4)
    assert torch.equal(block.run(model, x), model.block(x))


NO_BLOCK = {
    "one layer after the other": nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1)),
    "called twice": Network(lambda block, x: block(block(x))),
    "reads two tensors": Network(lambda block, x: block(x, mask=x)),
    "another tensor waits": Network(lambda block, x: x + block(x)),
    "the network itself": Residual(),
}


@pytest.mark.parametrize("case", NO_BLOCK)
def test_no_block(case):
    assert blocks(NO_BLOCK[case], (2, 4, 4)) == []


def test_many_layers_in_a_row_are_no_block():
    layers = [nn.Conv2d(2, 2, 1) for _ in range(9)]
    assert blocks(nn.Sequential(nn.Sequential(*layers), nn.Flatten()), (2, 4, 4)) == []
    (block,) = blocks(nn.Sequential(nn.Sequential(*layers[:8]), nn.Flatten()), (2, 4, 4))
    assert block.name == "0"


def test_what_a_block_costs():
    (block,) = blocks(Network(lambda block, x: block(x)), (2, 4, 4))
    assert block.multiplications == 2 * 16 * 4
    # Two convolutions, a ReLU and an addition.
    assert block.elements == 4 * 32


def test_no_hook_is_left():
    model = Network(lambda block, x: block(x))
    blocks(model, (2, 4, 4))
    assert not [module for module in model.modules() if module._forward_hooks]
