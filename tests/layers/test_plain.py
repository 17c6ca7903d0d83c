"""The plain network behind a compressed one: equal logits in double precision, and the names of before."""

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized

from micronet_cli.compression.pruning.pruner import Pruner
from micronet_cli.compression.pruning.sparsity_rules import SparsityRule
from micronet_cli.compression.quantization.bits_rules import BitsRule, OutputRule
from micronet_cli.compression.quantization.quantizer import Quantizer
from micronet_cli.compression.quantization.weight_quantizers import WeightLSQ
from micronet_cli.layers.fake_quantize import FakeQuantize
from micronet_cli.layers.integer import IntegerWeight, attach_integers
from micronet_cli.layers.plain import activation_quantizers, strip, without_activation_quantizers

PRUNE = {"all": SparsityRule("(?!{stem}$).*", 0.5)}
QUANTIZE = {"all": BitsRule(".*")}


# Small networks of timm: residual, depthwise with squeeze-and-excite, standardised weights, attention, LayerNorm.
FAMILIES = {"test_resnet": 32, "test_efficientnet": 32, "test_nfnet": 32, "test_vit": 160, "test_convnext": 32}


def family(name):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=5)


def compressed(model, shape, **options):
    """Pruned by half and quantised, with ranges of two batches, in double precision."""
    model.double()
    for compressor in (Pruner(PRUNE), Quantizer(QUANTIZE, **options)):
        compressor.attach(model)
        compressor.update(1, 1)
    for _ in range(2):
        model.train()(torch.randn(4, *shape, dtype=torch.float64))
    return model.double().eval()


def distance(one, other, shape):
    images = torch.randn(2, *shape, dtype=torch.float64)
    with torch.no_grad():
        return float((one(images) - other(images)).abs().max())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("weight", [None, WeightLSQ()], ids=["range", "lsq"])
def test_a_plain_network_computes_what_the_compressed_one_does_in_float_activations(name, weight):
    shape = (3, FAMILIES[name], FAMILIES[name])
    model = compressed(family(name), shape, weight=weight)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    plain = strip(model)
    assert distance(plain, without_activation_quantizers(model), shape) <= 1e-9
    assert distance(plain, model, shape) > 1e-3  # the activations' quantisers do something
    assert plain.state_dict().keys() == family(name).state_dict().keys()
    assert not any(is_parametrized(module) or isinstance(module, FakeQuantize) for module in plain.modules())
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"])
def test_timms_own_network_computes_the_same_with_the_plain_tensors(name):
    shape = (3, FAMILIES[name], FAMILIES[name])
    model = compressed(family(name), shape)
    ours = strip(model)
    theirs = family(name).double().eval()
    theirs.load_state_dict(ours.state_dict())
    assert distance(ours, theirs, shape) <= 1e-9


def tied():
    """Two layers with one weight."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[1].weight
    return model


def twice():
    """One layer under two names."""
    layer = nn.Linear(4, 4)
    return nn.Sequential(nn.Linear(4, 4), layer, nn.ReLU(), layer)


def normed():
    return nn.Sequential(nn.Linear(4, 4), weight_norm(nn.Linear(4, 4)))


@pytest.mark.parametrize("build", [tied, twice, normed])
def test_shared_and_normed_weights_are_baked(build):
    torch.manual_seed(0)
    model = compressed(build(), (4,))
    plain = strip(model)
    assert distance(plain, without_activation_quantizers(model), (4,)) <= 1e-9
    assert not any("parametrizations" in name for name in plain.state_dict())
    assert (plain[1].weight == 0).sum() == 8


def test_one_layer_is_a_network_too():
    layer = nn.Linear(4, 4)
    Quantizer({"all": BitsRule(".*")}, activation_bits=None).attach(layer)
    plain = strip(layer)
    assert type(plain) is nn.Linear
    assert torch.equal(plain.weight, layer.weight)


def test_modules_with_a_quantiser_of_their_own_are_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    Quantizer({"last": BitsRule("2")}, outputs={"relu": OutputRule("1")}).attach(model)
    assert activation_quantizers(model) == ["1", "2"]
    assert activation_quantizers(strip(model)) == []
    assert "fake_quantize" not in repr(strip(model))


def test_a_packed_network_is_refused():
    layer = nn.Linear(2, 2)
    attach_integers(layer, torch.zeros(2, 2), IntegerWeight(4, "per_channel", True), masked=False)
    with pytest.raises(ValueError, match="runs on integers"):
        strip(layer)
