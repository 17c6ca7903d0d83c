"""ONNX files: integer codes that training made, and onnxruntime's answer to them."""

import copy

import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from micronet_cli.artifact import onnx_file
from micronet_cli.artifact.onnx import check_onnx, export_onnx, with_codes
from micronet_cli.artifact.onnx_operators import QuantizedWeight
from micronet_cli.compression.quantization import activation_quantizers, weight_quantizers
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.layers.effective_weight import attach_mask
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, attach_output_fake_quantize
from micronet_cli.models.model import InputSpec, Model
from micronet_cli.network import Network
from tests.artifact.exportable import ALL, SPEC, nearly_dead, settle, small

NORMS = {
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
    "orthogonal": nn.utils.parametrizations.orthogonal,
}


def exported(model, tmp_path, quantizer, spec=SPEC):
    """Network, file and images after attaching, settling and exporting."""
    if quantizer is not None:
        quantizer.attach(model)
    images = torch.randn(32, *spec.size)
    network = Network(settle(model, images), {}, list("abcde"), spec)
    path = tmp_path / "model.onnx"
    return network, path, images, export_onnx(network, path)


def test_equal_biases_of_two_layers_are_held_once(tmp_path):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3)], [nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3)]
    model = nn.Sequential(*layers[0], nn.ReLU(), *layers[1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    Quantizer(ALL, 4, 4).attach(model)
    images = torch.randn(8, *SPEC.size)
    model.train()(images)
    for norm in (model[1], model[4]):
        norm.reset_running_stats()
        nn.init.constant_(norm.bias, 0.5)
    path = tmp_path / "model.onnx"
    export_onnx(Network(model.eval(), {}, list("abcde"), SPEC), path)
    assert check_onnx(path, model, images)["max_abs_deviation"] < 1e-4
    held = [tensor for tensor in onnx.load(path).graph.initializer if tensor.data_type == TensorProto.INT32]
    assert len(held) == 2


def test_4_bit_network_is_one_file_of_4_bit_codes_that_answers_like_the_network(tmp_path):
    model = small()
    attach_mask(model[3]).mask[3] = False  # a filter of zeros
    attach_output_fake_quantize(model[5], ActivationFakeQuantize(8))
    network, path, images, told = exported(model, tmp_path, Quantizer(ALL, 4, 4))
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert told == {"bytes": path.stat().st_size, "opset": 21, "quantized_weights": 3, "quantized_activations": 4}
    # Fused as users run it, and as it stands: rounding of a bias, say, must not tell them apart.
    for fused in (False, True):
        found = check_onnx(path, network.model, images, fused)
        assert found["equal_predictions"] == 1
        assert found["max_abs_deviation"] < 1e-4
    proto = onnx.load(path)
    codes = [t for t in proto.graph.initializer if t.name.endswith(".codes")]
    assert {t.data_type for t in codes} == {TensorProto.UINT4}
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}
    assert str(tmp_path.parents[0]).encode() not in path.read_bytes()
    assert b"site-packages" not in path.read_bytes()
    scales = [numpy_helper.to_array(t) for t in proto.graph.initializer if t.name.endswith("scale")]
    assert all((scale > 0).all() for scale in scales)


def test_the_network_itself_is_left_as_it_was():
    model = small()
    Quantizer(ALL, 4, 4).attach(model)
    images = torch.randn(8, *SPEC.size)
    network = Network(settle(model, images), {}, [], SPEC)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        wanted = model(images)
        torch.testing.assert_close(with_codes(network)(images), wanted, atol=1e-4, rtol=0)
        assert torch.equal(model(images), wanted)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_in_front_of_mask_and_quantiser_is_part_of_the_codes(norm):
    model = small()
    for number, bits in ((0, None), (3, 4)):  # a norm alone, and one with a quantiser behind it
        NORMS[norm](model[number])
        if bits is not None:
            attach_mask(model[number]).mask[3] = False
            Quantizer({"one": BitsRule(str(number))}, bits, 8).attach(model)
    images = torch.randn(8, *SPEC.size)
    network = Network(settle(model, images), {}, [], SPEC)
    with torch.no_grad():
        twin = with_codes(network)
        torch.testing.assert_close(twin(images), model(images), atol=1e-4, rtol=0)
    assert [name for name, module in twin.named_modules() if isinstance(module, QuantizedWeight)] == [
        "3.parametrizations.weight.0"
    ]
    assert type(twin[0]) is nn.Conv2d


@pytest.mark.slow
def test_a_normed_network_runs_in_onnxruntime(tmp_path):
    model = small()
    for number in (0, 3, 8):
        nn.utils.parametrizations.weight_norm(model[number])
    network, path, images, told = exported(model, tmp_path, Quantizer(ALL, 4, 4))
    assert told["quantized_weights"] == 3
    assert check_onnx(path, network.model, images)["max_abs_deviation"] < 1e-4


def test_older_opsets_are_refused(tmp_path):
    with pytest.raises(ValueError, match="opset=20: must be at least 21"):
        export_onnx(Network(small(), {}, [], SPEC), tmp_path / "x.onnx", opset=20)


SCHEMES = {
    "w8a8": Quantizer(ALL, 8, 8),
    "symmetric": Quantizer(
        ALL, 8, 8, weight=weight_quantizers.RangeLinear("per_channel", True),
        activation=activation_quantizers.TrackedRange(0.9, True),
    ),
    "lsq": Quantizer(ALL, 4, 4, weight=weight_quantizers.WeightLSQ(), activation=activation_quantizers.ActivationLSQ()),
    "ternary": Quantizer(ALL, 1.6, 4, weight=weight_quantizers.Ternary()),
    "binary": Quantizer(ALL, 1, 2.5, weight=weight_quantizers.Binary()),
    "dorefa": Quantizer(ALL, 3, 5, weight=weight_quantizers.DoReFa(), activation=activation_quantizers.PACT()),
    "wide": Quantizer(ALL, 10, 12),
    "float": None,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes_export(tmp_path, scheme):
    network, path, images, _ = exported(small(), tmp_path, copy.deepcopy(SCHEMES[scheme]))
    for fused in (False, True):
        found = check_onnx(path, network.model, images, fused)
        # Values that lie on a tie between two levels fall to either side: a step of some activation.
        assert found["max_abs_deviation"] < 0.05 * found["max_abs_logit"]
        assert found["equal_predictions"] > 0.9


@pytest.mark.slow
def test_large_network_has_its_tensors_beside_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "MOST_BYTES", 100)
    network, path, images, told = exported(small(), tmp_path, Quantizer(ALL, 8, 8))
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["model.onnx", "model.onnx.data"]
    assert told["bytes"] == sum(file.stat().st_size for file in files)
    assert check_onnx(path, network.model, images)["equal_predictions"] == 1


def test_shifts_of_nearly_dead_channels_are_kept(tmp_path):
    model = nearly_dead(1e-7)
    Quantizer(ALL, 8, 8).attach(model)
    images = torch.randn(32, *SPEC.size)
    with torch.no_grad():
        model.train()(images)
    path = tmp_path / "model.onnx"
    export_onnx(Network(model.eval(), {}, list("abcde"), SPEC), path)
    found = check_onnx(path, model, images, fused=True)
    assert found["max_abs_deviation"] < 0.02 * found["max_abs_logit"]


@pytest.mark.slow
@pytest.mark.parametrize("weight_bits", [5, 8, 16])
@pytest.mark.parametrize("activation_bits", [4, 16])
def test_operands_of_different_widths_run_fused(tmp_path, weight_bits, activation_bits):
    quantizer = Quantizer(ALL, weight_bits, activation_bits)
    network, path, images, _ = exported(small(), tmp_path, quantizer)
    found = check_onnx(path, network.model, images, fused=True)
    assert found["max_abs_deviation"] < 1e-3 * found["max_abs_logit"]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["w8a8", "symmetric"])
def test_outputs_in_integers_too(tmp_path, scheme):
    model = small()
    for module in (model[1], model[4], model[5], model[6]):
        attach_output_fake_quantize(module, ActivationFakeQuantize(8))
    network, path, images, _ = exported(model, tmp_path, copy.deepcopy(SCHEMES[scheme]))
    for fused in (False, True):
        found = check_onnx(path, network.model, images, fused)
        assert found["max_abs_deviation"] < 0.05 * found["max_abs_logit"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet8", "mobilenetv2_035", "vit_tiny_patch16_224"])
def test_architectures_export(tmp_path, name):
    model = Model(name).build(5)
    spec = InputSpec.of(model, 224 if "vit" in name else 32)
    network, path, images, _ = exported(model, tmp_path, Quantizer(ALL, 8, 8), spec)
    found = check_onnx(path, network.model, images[:8])
    assert found["max_abs_deviation"] < 0.1 * found["max_abs_logit"]
