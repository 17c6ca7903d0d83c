"""A channel whose weights, or an input whose values, are too small to divide by: at 0, with finite scales."""

import copy

import pytest
import torch

from micronet_cli.artifact.compare import compare
from micronet_cli.artifact.onnx import with_codes
from micronet_cli.artifact.onnx_operators import QuantizedActivation, QuantizedWeight
from micronet_cli.layers.effective_weight import effective_weight, original_weight
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, FakeQuantize
from micronet_cli.models.model import InputSpec
from micronet_cli.network import Network
from tests.artifact.networks import CLASSES, SCHEMES, network, packed

NARROW = (1e-38, 1e-45, 1e-39)
QUANTIZED = (
    "w4a4",
    "w8a8",
    "symmetric",
    "per tensor",
    "lsq",
    "lsq+",
    "dorefa, pact",
    "binary",
    "ternary",
    "a2q",
    "2:4",
)


def with_narrow_channels(scheme):
    """A network whose layer has channels of next to nothing, and the layer."""
    model = network(**SCHEMES[scheme])
    layer = model.layer2[0].conv1
    weight = original_weight(layer)
    with torch.no_grad():
        for channel, size in enumerate(NARROW):
            weight[channel] = size * weight[channel].sign()
    return model, layer


def images():
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scheme", QUANTIZED)
def test_narrow_channels_are_0_with_finite_scales_and_gradients(scheme):
    model, layer = with_narrow_channels(scheme)
    parts = effective_weight(layer)
    scale, zero_point = parts.qparams(original_weight(layer).detach())
    assert scale.isfinite().all()
    assert scale.reciprocal().isfinite().all()
    assert zero_point.isfinite().all()
    assert (layer.weight[: len(NARROW)] == 0).all()
    model.train()(images()).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("scheme", ["w4a4", "symmetric", "lsq", "ternary"])
def test_narrow_channels_survive_the_packed_file(scheme, tmp_path):
    model, _ = with_narrow_channels(scheme)
    loaded = packed(tmp_path / "model.mnet", model)
    found = compare(model, loaded, images(), torch.float64)
    assert found.unexplained == 0
    assert found.logit_error < 1e-6
    weight = loaded.layer2[0].conv1.weight
    assert (weight[: len(NARROW)] == 0).all()
    for module in loaded.modules():
        tensors = module.state_dict().values()
        assert all(tensor.isfinite().all() for tensor in tensors)


@pytest.mark.parametrize("gain", [1.0, 1e-38], ids=["narrow weights", "a narrow gain"])
def test_narrow_channels_have_ordinary_scales_in_onnx(gain):
    model, _ = with_narrow_channels("w4a4")
    with torch.no_grad():
        model.layer2[0].bn1.weight[3] *= gain
    coded = with_codes(Network(model, {}, CLASSES, InputSpec((3, 16, 16), (0.5,) * 3, (0.5,) * 3)))
    weights = [module for module in coded.modules() if isinstance(module, QuantizedWeight)]
    assert all((module.scale >= torch.finfo(torch.float32).tiny).all() for module in weights)
    assert all(module.scale.isfinite().all() for module in weights)
    inputs = [module for module in coded.modules() if isinstance(module, QuantizedActivation)]
    assert all(0 < module.scale < torch.inf for module in inputs)


@pytest.mark.parametrize("scheme", ["w4a4", "symmetric", "lsq", "lsq+", "dorefa, pact"])
def test_a_narrow_input_range_is_0(scheme):
    model = network(**SCHEMES[scheme])
    quantizer = copy.deepcopy(model.layer2[0].conv1.input_fake_quantize)
    assert isinstance(quantizer, FakeQuantize)
    fresh = type(quantizer)(4)
    if type(fresh) is ActivationFakeQuantize:
        fresh.symmetric = quantizer.symmetric
    x = torch.tensor([-1e-38, 0.0, 5e-39, 1e-38], requires_grad=True)
    out = fresh.train()(x)
    scale, zero_point = fresh.qparams()
    assert scale.isfinite()
    assert scale.reciprocal().isfinite()
    assert zero_point.isfinite()
    assert (out == 0).all()
    out.sum().backward()
    assert x.grad.isfinite().all()
