"""Adaptive rounding of one layer: golden cases, masks, ties, and the settings that it refuses."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from micronet_cli.compression.quantization.adaround import AdaRound
from micronet_cli.compression.quantization.fixed_grid import FixedGrids
from micronet_cli.compression.quantization.layer_output import Affine
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.compression.quantization.reconstruction import Reconstruction
from micronet_cli.layers.effective_weight import attach_mask, original_weight
from micronet_cli.trace.layer_inputs import product


def linear(weight):
    layer = nn.Linear(len(weight), 1, bias=False)
    layer.weight.data = torch.tensor([weight])
    return layer


def on_grid(layer):
    model = nn.Sequential(layer)
    Quantizer({"all": BitsRule(".*", activation_bits=None)}).attach(model)
    FixedGrids().attach(model)
    return layer


PLAIN = Affine(torch.ones(1, 1), torch.zeros(1, 1))


def test_one_weight_is_rounded_up_where_the_output_needs_it():
    """0.3 and 0.45 with equal inputs: the nearest gives 0, the sum 0.75 is better served by one step."""
    layer = nn.Linear(3, 1, bias=False)
    layer.weight.data = torch.tensor([[0.3, 0.45, 15.0]])
    Quantizer({"all": BitsRule(".*", activation_bits=None)}).attach(model := nn.Sequential(layer))
    FixedGrids().attach(model)
    assert layer.weight.tolist() == [[0, 0, 15]]
    rows = torch.randn(1, 64, 1).expand(-1, -1, 3).contiguous()
    target = product(rows, torch.tensor([[0.3, 0.45, 15.0]]))
    AdaRound(iterations=500, batch_size=64).round(layer, Reconstruction(rows, target, PLAIN))
    assert layer.weight.tolist() == [[0, 1, 15]]


class Layer(NamedTuple):
    """What decides whether a layer's rounding is learned."""

    when: str
    bits: float
    error: float
    learned: bool


LAYERS = {
    "few bits": Layer("auto", 6, 0.0, learned=True),
    "seven bits": Layer("auto", 7, 0.0, learned=False),
    "eight bits that lose as much as six": Layer("auto", 8, 8e-4, learned=True),
    "eight bits": Layer("auto", 8, 7e-4, learned=False),
    "always": Layer("always", 8, 0.0, learned=True),
}


@pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS)
def test_rounding_is_learned_where_it_matters(case):
    settings = AdaRound(when=case.when)
    learned = settings.learns(case.bits) or settings.learns_from(case.error)
    assert learned is case.learned


def test_a_masked_weight_stays_zero():
    layer = linear([0.45, 0.45, 15.0])
    attach_mask(layer).mask[0, 0] = False
    on_grid(layer)
    rows = torch.ones(1, 8, 3)
    target = product(rows, torch.tensor([[0.9, 0.9, 15.0]]))
    AdaRound(iterations=60, batch_size=8, lr=0.1).round(layer, Reconstruction(rows, target, PLAIN))
    assert layer.weight.tolist() == [[0, 1, 15]]
    assert original_weight(layer)[0, 0] == 0


def test_the_nearest_stays_where_nothing_is_better():
    layer = on_grid(linear([0.2, 15.0]))
    rows = torch.zeros(1, 4, 2)
    AdaRound(iterations=2).round(layer, Reconstruction(rows, torch.zeros(1, 4), PLAIN))
    assert original_weight(layer).tolist() == [[0, 15]]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        pytest.param({"when": "often"}, "when=often: must be auto or always", id="when"),
        pytest.param({"iterations": 0}, "iterations=0: must be at least 1", id="iterations"),
        pytest.param({"batch_size": 0}, "batch_size=0: must be at least 1", id="batch_size"),
        pytest.param({"lr": 0}, "lr=0: must be above 0", id="lr"),
        pytest.param({"regularization": -1}, "regularization=-1: must be above 0", id="regularization"),
        pytest.param({"warmup": 1}, "warmup=1: must be a fraction", id="warmup"),
    ],
)
def test_impossible_settings_are_refused(setting, said):
    with pytest.raises(ValueError, match=said):
        AdaRound(**setting)
