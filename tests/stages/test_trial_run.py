"""Rules whose compression no product sees are named: an error where nothing of a rule works, else a warning."""

import logging
from types import SimpleNamespace

import pytest
import timm.layers
import torch
from torch import nn

from micronet_cli.compression.pruning.pruner import Pruner
from micronet_cli.compression.pruning.sparsity_rules import SparsityRule
from micronet_cli.compression.quantization.bits_rules import BitsRule, OutputRule
from micronet_cli.compression.quantization.quantizer import Quantizer
from micronet_cli.stages.trial_run import check_effects


class Functional(nn.Module):
    """A layer that is called, and one whose weight a function reads."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)

    def forward(self, x):
        return nn.functional.linear(self.first(x), self.second.weight)


class ReadsValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x) * float(x.mean())


def network_of(model):
    return SimpleNamespace(model=model, spec=SimpleNamespace(size=(1, 4, 4)))


def attached(model, **compressors):
    for compressor in compressors.values():
        compressor.attach(model)
    return check_effects(compressors, network_of(model))


def bits(match, **options):
    return Quantizer({"all": BitsRule(match)}, **{"weight_bits": None, "activation_bits": 4, **options})


def test_rules_that_work_are_not_named(caplog):
    model = nn.Sequential(nn.Linear(4, 4))
    assert attached(model, prune=Pruner({"all": SparsityRule(".*", 0.5)}), quantize=bits(".*")) == []
    assert caplog.text == ""


def test_a_rule_without_any_effect_is_a_problem():
    (problem,) = attached(Functional(), quantize=bits("second"))
    assert problem.startswith("quantize.rules.all: no effect on second (the input's quantiser is never called)")
    assert "later rule" in problem


def test_a_rule_with_some_effect_is_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert attached(Functional(), quantize=bits(".*")) == []
    assert "quantize.rules.all: no effect on second (the input's quantiser is never called)" in caplog.text
    assert "first" not in caplog.text


@pytest.mark.parametrize("values", [pytest.param(0.0, id="sparsity 0"), pytest.param(None, id="left alone")])
def test_a_rule_without_a_target_is_not_looked_at(values):
    assert attached(Functional(), prune=Pruner({"all": SparsityRule(".*", values)})) == []


def test_standardised_layers_work():
    model = nn.Sequential(timm.layers.StdConv2d(1, 4, 3))
    prune = Pruner({"all": SparsityRule(".*", 0.5)})
    assert attached(model, prune=prune, quantize=bits(".*", weight_bits=4)) == []


def test_a_network_that_is_not_traced_is_left_to_the_scorer():
    assert attached(ReadsValues(), quantize=bits(".*")) == []


def test_nothing_attached_needs_no_run():
    assert check_effects({}, network_of(None)) == []


def test_a_compressor_of_ones_own_shows_what_it_likes():
    own = SimpleNamespace(table=lambda model: {"0": {"note": "x"}})
    assert check_effects({"prune": own}, network_of(nn.Sequential(nn.Linear(4, 4)))) == []


def test_an_output_that_is_never_called_is_named():
    quantize = Quantizer({}, outputs={"own": OutputRule("second")})
    (problem,) = attached(Functional(), quantize=quantize)
    assert problem.startswith("quantize.outputs.own: no effect on second (the output's quantiser is never called)")
    assert attached(Functional(), quantize=Quantizer({}, outputs={"own": OutputRule("first")})) == []
    assert (
        attached(Functional(), quantize=Quantizer({}, activation_bits=None, outputs={"a": OutputRule("second")})) == []
    )


def test_weights_that_no_rule_can_choose_are_told_of(caplog):
    model = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.ConvTranspose2d(3, 3, 1, bias=False))
    with caplog.at_level(logging.WARNING):
        assert attached(model, quantize=bits(".*", weight_bits=4)) == []
    # 9 of 12 weights
    assert "75 % of the weights stay as they are, in 1 modules" in caplog.text
    assert "as 1 (ConvTranspose2d)" in caplog.text


class Products(nn.Module):
    """A product with a parameter, which stays as it is, and one of two computed tensors."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(4, 4))

    def forward(self, x):
        x = x @ self.matrix
        return x @ x.mT


def test_products_that_stay_in_float_are_named(caplog):
    model = nn.Sequential(nn.Linear(4, 4), Products())
    model.default_cfg = {"input_size": (1, 4, 4)}
    with caplog.at_level(logging.WARNING):
        assert attached(model, quantize=bits(".*", attention=True)) == []
    assert "quantize.attention: in float stay products of 1" in caplog.text


def test_quantised_products_have_an_effect(caplog):
    model = timm.create_model("test_vit", img_size=16, patch_size=8, in_chans=1, depth=1)
    model.default_cfg = model.pretrained_cfg = {"input_size": (1, 16, 16)}
    quantize = Quantizer({"attention": BitsRule(r".*\.attn", activation_bits=4)}, attention=True)
    quantize.attach(model)
    network = SimpleNamespace(model=model, spec=SimpleNamespace(size=(1, 16, 16)))
    assert check_effects({"quantize": quantize}, network) == []
    assert caplog.text == ""
