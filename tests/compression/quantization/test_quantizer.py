"""Which layers get which quantisers, and that networks with them train, copy and load."""

import copy

import pytest
import timm
import torch
from torch import nn

from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.layers.effective_weight import effective_weight, original_weight
from micronet_cli.layers.rules import compressible_layers

ALL = {"all": BitsRule(".*")}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 4))


def test_every_quantised_convolution_of_a_swish_network_has_a_quantised_input():
    model = timm.create_model("tf_efficientnet_b1")
    Quantizer({"conv": BitsRule("(?!{stem}$).*")}).attach(model)
    seen = {}
    for name, layer in compressible_layers(model).items():
        layer.register_forward_hook(lambda m, inputs, o, name=name: seen.__setitem__(name, inputs[0]))
    model.train()
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64))
    assert len(seen) == 116
    assert seen["conv_stem"].unique().numel() > 1000
    assert [name for name, x in seen.items() if name != "conv_stem" and x.unique().numel() > 16] == []


def test_zeros_survive_quantisation_whatever_the_order_of_attachment():
    def prune(model):
        pruner = Pruner({"all": SparsityRule(".*", 0.5)})
        pruner.attach(model)
        pruner.update(1, 1)

    for order in ((prune, Quantizer(ALL).attach), (Quantizer(ALL).attach, prune)):
        model = network()
        for attach in order:
            attach(model)
        assert (model[2].weight[~effective_weight(model[2]).mask] == 0).all()
        assert all(channel.unique().numel() <= 16 for channel in model[2].weight)


def test_gradient_flows_through_to_the_weights():
    model = network()
    Quantizer(ALL).attach(model)
    model(torch.randn(2, 3, 8, 8)).square().sum().backward()
    assert all(original_weight(layer).grad.abs().sum() > 0 for layer in (model[0], model[2], model[4]))


def test_copies_have_observers_of_their_own():
    model = network()
    Quantizer(ALL).attach(model)
    copied = copy.deepcopy(model)
    copied.train()(torch.randn(2, 3, 8, 8))
    assert copied[2].input_fake_quantize.seen > 0
    assert model[2].input_fake_quantize.seen == 0


def test_attaching_anew_replaces():
    model = network()
    Quantizer(ALL, weight_bits=8).attach(model)
    Quantizer(ALL, weight_bits=2, activation_bits=None).attach(model)
    assert len(model[2].weight[0].unique()) <= 4
    assert not model[2]._forward_pre_hooks
    assert set(model.state_dict()) == {
        f"{i}.{name}" for i in (0, 2, 4) for name in ("bias", "parametrizations.weight.original")
    }


def test_rules_have_bits_of_their_own():
    rules = ALL | {"last": BitsRule("4", weight_bits=2.5, activation_bits=None)}
    found = Quantizer(rules, weight_bits=4, activation_bits=4).resolve(network())
    assert found == {"0": ("all", 4, 4), "2": ("all", 4, 4), "4": ("last", 2.5, None)}


@pytest.mark.parametrize("bits", [0, 0.5, 17, "x"])
def test_impossible_bits_are_refused(bits):
    with pytest.raises(ValueError, match="must be 1 to 16 bits"):
        Quantizer(ALL, weight_bits=bits)
