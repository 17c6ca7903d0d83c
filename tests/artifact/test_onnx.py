"""ONNX files: integer codes that training made, and onnxruntime's answer to them."""

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from micronet_cli.artifact.onnx import check_onnx, export_onnx, with_codes
from micronet_cli.artifact.onnx_graph import hold_biases, narrowest, pack_codes, split_clips
from micronet_cli.artifact.onnx_operators import QuantizedWeight
from micronet_cli.compression.quantization import activation_quantizers, weight_quantizers
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.layers.effective_weight import attach_mask
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, attach_output_fake_quantize
from micronet_cli.models.model import InputSpec, Model
from micronet_cli.network import Network

ALL = {"all": BitsRule(".*")}
SPEC = InputSpec((3, 12, 12), (0.5,) * 3, (0.5,) * 3)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 16, 3, 2), nn.BatchNorm2d(16),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


def settle(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Ranges seen, BatchNorms with gains of both signs and one of zero."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
            module.weight.data[0] = 0
    with torch.no_grad():
        model.train()(images)
    return model.eval()


def exported(model, tmp_path, quantizer, spec=SPEC):
    """Network, file and images after attaching, settling and exporting."""
    if quantizer is not None:
        quantizer.attach(model)
    images = torch.randn(32, *spec.size)
    network = Network(settle(model, images), {}, list("abcde"), spec)
    path = tmp_path / "model.onnx"
    return network, path, images, export_onnx(network, path)


def test_gain_goes_into_scales_and_mirrors_codes():
    # scale 2 (steps of 0.5), zero point -1: codes 0, 3, 1 of integers -1, 2, 0.
    weight = torch.tensor([[-0.5, 1.0, 0.0]] * 3)
    code = QuantizedWeight(weight, torch.full((3, 1), 2.0), torch.full((3, 1), -1.0), 3)
    code.multiply(torch.tensor([3.0, -2.0, 0.0], dtype=torch.float64))
    assert code.codes.tolist() == [[0, 3, 1], [3, 0, 2], [1, 1, 1]]
    assert code.zero_point.tolist() == [1, 2, 1]
    assert code.scale.tolist() == [1.5, 1.0, 0.0]
    code.rescale_zeros()
    assert code.scale.tolist() == [1.5, 1.0, 1.0]
    assert code(weight).tolist() == [[-1.5, 3.0, 0.0], [1.0, -2.0, 0.0], [0.0, 0.0, 0.0]]


def test_symmetric_codes_stay_symmetric_when_mirrored():
    code = QuantizedWeight(torch.tensor([[-1.0, 0.0, 1.0]]), torch.ones(1, 1), torch.full((1, 1), -7.0), 15)
    code.multiply(torch.tensor([-1.0]))
    assert code.codes.tolist() == [[8, 7, 6]]
    assert code.zero_point.tolist() == [7]


def test_narrowest_type_refuses_more_than_16_bits():
    with pytest.raises(ValueError, match="16 bits"):
        narrowest(np.array([-1, 65535]))


def weight_graph(codes, zero_points):
    """Two weights that share one zero point tensor, as the exporter leaves them."""
    names = [f"layer{number}.codes" for number in range(len(codes))]
    tensors = [numpy_helper.from_array(np.array(c, np.int32), name) for c, name in zip(codes, names, strict=True)]
    tensors.append(numpy_helper.from_array(np.array(zero_points, np.int32), "zero"))
    tensors.append(numpy_helper.from_array(np.ones(len(zero_points), np.float32), "scale"))
    nodes = [
        helper.make_node("DequantizeLinear", [name, "scale", "zero"], [f"weight{number}"], axis=0)
        for number, name in enumerate(names)
    ]
    return helper.make_graph(nodes, "weights", [], [], tensors)


def test_weights_that_share_a_zero_point_are_packed_apart():
    graph = weight_graph([[[0, 16], [8, 9]], [[7, 8], [8, 9]]], [8, 8])
    pack_codes(graph)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    found = [[tensors[node.input[i]] for i in (0, 2)] for node in graph.node]
    assert [t.data_type for pair in found for t in pair] == [TensorProto.INT8] * 2 + [TensorProto.INT4] * 2
    values = [[numpy_helper.to_array(t).astype(int).tolist() for t in pair] for pair in found]
    assert values == [[[[-8, 8], [0, 1]], [0, 0]], [[[-1, 0], [0, 1]], [0, 0]]]
    assert "zero" not in tensors


def test_zero_points_by_channel_stay_unsigned():
    graph = weight_graph([[[0, 15], [3, 0]]], [4, 2])
    pack_codes(graph)
    assert {t.data_type for t in graph.initializer if t.name != "scale"} == {TensorProto.UINT4}


def test_biases_beside_4_bit_weights_keep_their_value():
    graph = weight_graph([[[0, 15], [3, 0]]], [4, 2])
    graph.node.append(helper.make_node("Gemm", ["x", "weight0", "bias"], ["y"], transB=1))
    bias = np.array([0.1, -1e-3], np.float32)
    graph.initializer.append(numpy_helper.from_array(bias, "bias"))
    pack_codes(graph)
    hold_biases(graph)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert [node.op_type for node in graph.node] == ["DequantizeLinear", "DequantizeLinear", "Gemm"]
    assert graph.node[2].input[2] == graph.node[1].output[0]
    np.testing.assert_allclose(tensors["bias.int32"] * tensors["bias.scale"], bias, rtol=1e-6)


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


@pytest.mark.parametrize(("kind", "parts"), [(TensorProto.UINT4, ["Max", "Min"]), (TensorProto.UINT8, ["Clip"])])
def test_only_clips_before_4_bits_are_split(kind, parts):
    nodes = [
        helper.make_node("Clip", ["x", "low", "high"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "scale", "zero"], ["q"]),
    ]
    graph = helper.make_graph(nodes, "clip", [], [], [helper.make_tensor("zero", kind, [], [0])])
    split_clips(graph)
    assert [node.op_type for node in graph.node] == [*parts, "QuantizeLinear"]
    assert graph.node[len(parts)].input[0] == graph.node[len(parts) - 1].output[0] == "c"


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
