"""Grids with a gain: rounded weights reach as far along the weights as those themselves, and zeros stay."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from micronet_cli.compression.quantization.adaround import AdaRound
from micronet_cli.compression.quantization.fixed_grid import FixedGrids
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.compression.quantization.weight_quantizers import RangeLinear
from micronet_cli.compression.quantization.weight_ranges import set_weight_ranges
from micronet_cli.functional.weight_ranges import least_error
from micronet_cli.layers.effective_weight import attach_mask, effective_weight, original_weight


def gridded(model, bits=3, **options):
    Quantizer({"all": BitsRule(".*", activation_bits=None)}, bits, weight=RangeLinear(**options)).attach(model)
    FixedGrids(standardize_once=True).attach(model)
    return model


class Grid(NamedTuple):
    """The integers of a weight, and which weights share a range."""

    bits: float
    symmetric: bool = False
    granularity: str = "per_channel"


GRIDS = {
    "whole bits": Grid(3),
    "fractional bits": Grid(2.5),
    "symmetric": Grid(3, symmetric=True),
    "two bits": Grid(2),
    "many bits": Grid(8),
    "one range": Grid(3, granularity="per_tensor"),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("masked", [False, True])
def test_the_length_along_the_weight_stays(grid, masked):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, groups=2).double()
    if masked:
        mask = attach_mask(layer).mask
        mask.copy_(torch.rand(mask.shape) > 0.5)
        mask[1] = False
    weight = layer.weight.detach().clone()
    model = gridded(nn.Sequential(layer), grid.bits, symmetric=grid.symmetric, granularity=grid.granularity)
    set_weight_ranges(model, least_error)
    shape = (6, -1) if grid.granularity == "per_channel" else (1, -1)
    rows, rounded = weight.reshape(shape), layer.weight.reshape(shape)
    torch.testing.assert_close((rows * rounded).sum(1), rows.square().sum(1))
    assert not rounded[rows == 0].any()
    levels = effective_weight(layer).fake_quantize.levels
    assert max(row.unique().numel() for row in rounded) <= levels


def test_a_layer_by_hand():
    """One bit, fifteen times 1 and a 4: every weight at one level, of the length (15 + 16) / (15 + 4)."""
    layer = nn.Linear(16, 1)
    layer.weight.data = torch.tensor([[1.0] * 15 + [4.0]])
    model = gridded(nn.Sequential(layer), bits=1)
    assert layer.weight.tolist() == [[0] * 15 + [4]]
    set_weight_ranges(model, least_error)
    torch.testing.assert_close(layer.weight, torch.full((1, 16), 31 / 19))


LEARNED = {
    "few bits": (2, True),
    "enough bits to learn on the own range": (3, False),
    "so many that rounding is to the nearest": (8, True),
}


@pytest.mark.parametrize(("bits", "moves"), LEARNED.values(), ids=LEARNED)
def test_learned_rounding_of_enough_bits_keeps_the_own_range(bits, moves):
    torch.manual_seed(0)
    layer = nn.Linear(32, 4)
    model = gridded(nn.Sequential(layer), bits)
    before = layer.weight.clone()
    set_weight_ranges(model, least_error, AdaRound())
    assert torch.equal(layer.weight, before) != moves


def test_a_weight_of_two_layers_keeps_its_grid():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))
    model[2].weight = model[0].weight
    gridded(model, bits=2)
    before = [layer.weight.clone() for layer in (model[0], model[2], model[3])]
    set_weight_ranges(model, least_error)
    after = [layer.weight for layer in (model[0], model[2], model[3])]
    assert [torch.equal(*pair) for pair in zip(before, after, strict=True)] == [True, True, False]


def test_a_weight_that_is_made_of_others_keeps_its_grid():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)))
    gridded(model, bits=2)
    before = model[0].weight.clone()
    set_weight_ranges(model, least_error)
    assert torch.equal(model[0].weight, before)


def test_a_checkpoint_brings_the_gain():
    torch.manual_seed(0)
    saved, loaded = gridded(nn.Sequential(nn.Linear(8, 4))), gridded(nn.Sequential(nn.Linear(8, 4)))
    set_weight_ranges(saved, least_error)
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded[0].weight, saved[0].weight)
    assert not torch.equal(original_weight(saved[0]), saved[0].weight)
