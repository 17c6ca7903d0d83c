"""How one block learns: a golden one, what stays as it was, and settings that are refused."""

import pytest
import torch
from torch import nn

from micronet_cli.compression.quantization.block_data import BlockData
from micronet_cli.compression.quantization.block_reconstruction import BlockReconstruction, LearningBlock
from micronet_cli.compression.quantization.fixed_grid import FixedGrids
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.trace.blocks import Block

BLOCK = Block("0", ("0.0", "0.1"), (None,), {}, 0.0, 1)


def quantized(activation_bits=None, first=0.5):
    """Two layers, of which the first one's levels are -1, 0, 1 and 2."""
    block = nn.Sequential(nn.Linear(3, 1, bias=False), nn.Linear(1, 1, bias=False))
    block[0].weight.data = torch.tensor([[first, -1.0, 2.0]])
    block[1].weight.data = torch.tensor([[1.0]])
    model = nn.Sequential(block)
    Quantizer({"all": BitsRule(".*")}, 2, activation_bits).attach(model)
    FixedGrids().attach(model)
    return model.eval()


def learned(model, target, correct_bias=False, images=8, **options):
    data = BlockData(images, 1e9)
    x = torch.tensor([[1.0, 0.0, 0.0]]).expand(images, -1)
    data.add(x, x, target.expand(images, 1))
    settings = BlockReconstruction(**{"iterations": 200, "batch_size": 4} | options)
    generator = torch.Generator().manual_seed(0)
    learning = LearningBlock(BLOCK, model, settings, lambda bits: True, correct_bias, generator)
    before = learning.error(data, 3)
    learning.learn(data, 4)
    return before, learning.error(data, 3)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_weight_goes_where_the_blocks_output_asks(level):
    """0.5 is as near to 0 as to 1."""
    model = quantized()
    _, error = learned(model, torch.tensor([[level]]), lr=0.1)
    assert error == pytest.approx(0, abs=1e-10)
    assert model[0][0].weight.tolist() == [[level, -1, 2]]
    assert model[0][1].weight.tolist() == [[1]]


def test_a_weight_is_rounded_for_the_output_and_not_for_itself():
    """0.4 is nearer to 0, and 1 is nearer to what the block must give."""
    model = quantized(first=0.4)
    before, error = learned(model, torch.tensor([[0.9]]), lr=0.1)
    assert before == pytest.approx(1)
    assert error == pytest.approx((0.1 / 0.9) ** 2)
    assert model[0][0].weight[0, 0] == 1


def test_ranges_learn():
    model = quantized(activation_bits=2, first=1.0)
    for layer, high in zip(model[0], (1.0, 0.5), strict=True):
        layer.input_fake_quantize.high.fill_(high)
        layer.input_fake_quantize.seen.fill_(1)
    before, error = learned(model, torch.tensor([[1.0]]), width_lr=0.05, drop=0.0)
    assert before == pytest.approx(0.25)
    assert error < 0.01
    assert float(model[0][1].input_fake_quantize.high) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("correct_bias", [False, True])
def test_biases_learn_where_they_are_corrected(correct_bias):
    model = quantized(first=1.0)
    model[0][1].bias = nn.Parameter(torch.zeros(1))
    before, error = learned(model, torch.tensor([[1.3]]), correct_bias, bias_lr=0.01)
    assert before == pytest.approx((0.3 / 1.3) ** 2)
    assert (error < 1e-3) == correct_bias
    assert bool(model[0][1].bias != 0) == correct_bias


def test_everything_is_in_its_place_afterwards():
    model = quantized(activation_bits=8)
    names = [name for name, _ in model.named_modules()]
    model[0][1].parametrizations.weight.original.requires_grad_(False)
    learned(model, torch.tensor([[1.0]]), correct_bias=True, iterations=2)
    assert [name for name, _ in model.named_modules()] == names
    assert [p.requires_grad for p in model.parameters()] == [True, False]
    assert all(parameter.grad is None for parameter in model.parameters())
    grid = effective_weight(model[0][0]).fake_quantize
    assert grid.scale.tolist() == [[1]]


def test_a_network_in_float_has_nothing_to_learn():
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 1)))
    before, after = learned(model, torch.tensor([[1.0]]), correct_bias=True)
    assert before == after


MISTAKES = {
    "iterations": 0,
    "batch_size": 0,
    "lr": 0.0,
    "width_lr": -1.0,
    "bias_lr": 0.0,
    "regularization": 0.0,
    "warmup": 1.0,
    "drop": 1.5,
}


@pytest.mark.parametrize("key", MISTAKES)
def test_settings_out_of_range_are_refused(key):
    with pytest.raises(ValueError, match=f"{key}={MISTAKES[key]}: must be"):
        BlockReconstruction(**{key: MISTAKES[key]})
