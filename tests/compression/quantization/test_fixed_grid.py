"""Stored grids: rounded weights stay where they are, through checkpoints too."""

import pytest
import torch
from torch import nn

from micronet_cli.compression.quantization.fixed_grid import FixedGrid, FixedGrids
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.compression.quantization.weight_quantizers import Ternary
from micronet_cli.layers.effective_weight import attach_mask, effective_weight, original_weight
from micronet_cli.layers.fake_quantize import WeightFakeQuantize
from micronet_cli.layers.rules import compressible_layers


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 2))


def test_a_grid_that_is_taken_anew_is_another_one():
    """Why ranges are stored: rounding an extreme weight inwards moves a range that is re-derived."""
    weight = torch.tensor([[-0.53, 0.2, 1.0]])
    tracked = WeightFakeQuantize(4)
    scale, zero_point = tracked.qparams(weight)
    rounded = (torch.tensor([[0.0, 7.0, 14.0]]) + zero_point) / scale
    assert not torch.equal(tracked(rounded), rounded)
    assert torch.equal(FixedGrid(tracked, weight)(rounded), rounded)


def test_stored_ranges_start_as_the_range_linear_grid():
    model = network()
    attach_mask(model[2]).mask[0] = False
    Quantizer({"all": BitsRule(".*")}).attach(model)
    before = {name: layer.weight.clone() for name, layer in compressible_layers(model).items()}
    FixedGrids().attach(model)
    FixedGrids().attach(model)
    assert all(torch.equal(layer.weight, before[name]) for name, layer in compressible_layers(model).items())


def test_a_checkpoint_brings_its_grid():
    saved, loaded = network(0), network(1)
    for model in (saved, loaded):
        Quantizer({"all": BitsRule(".*", activation_bits=None)}).attach(model)
        FixedGrids().attach(model)
    original_weight(saved[2]).data.mul_(0.5)  # a range taken anew would follow
    loaded.load_state_dict(saved.state_dict())
    images = torch.randn(2, 3, 6, 6)
    assert torch.equal(loaded(images), saved(images))


def test_the_grid_does_not_follow_the_weight():
    grid = FixedGrid(WeightFakeQuantize(4), torch.tensor([[0.0, 15.0]]))
    scale, zero_point = grid.qparams(torch.tensor([[-100.0, 100.0]]))
    assert (scale.item(), zero_point.item()) == (1, 0)
    assert grid(torch.tensor([[-3.0, 99.0]])).tolist() == [[0, 15]]


def test_layers_in_float_stay_so():
    model = network()
    attach_mask(model[2])
    FixedGrids().attach(model)
    assert effective_weight(model[0]) is None
    assert effective_weight(model[2]).fake_quantize is None


def test_other_schemes_are_refused_by_layer():
    model = network()
    Quantizer({"last": BitsRule("4", weight_bits=1.6)}, weight=Ternary()).attach(model)
    with pytest.raises(ValueError, match=r"quantize\.weight: 4 has MagnitudeWeight; must be range-linear"):
        FixedGrids().attach(model)
