"""8-bit files for integer kernels: what stays float, which codes stay."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from micronet_cli.artifact import onnx_file
from micronet_cli.artifact.onnx import check_onnx
from micronet_cli.artifact.onnx_int8 import export_int8, float_nodes, keep_logits_float, pool_means
from micronet_cli.compression.quantization.quantizer import Quantizer
from micronet_cli.compression.quantization.weight_quantizers import RangeLinear
from micronet_cli.network import Network
from tests.artifact.exportable import ALL, SPEC, nearly_dead, settle, small


@pytest.mark.parametrize(
    ("keepdims", "kinds"),
    [
        pytest.param(1, ["GlobalAveragePool"], id="dimensions kept"),
        pytest.param(0, ["GlobalAveragePool", "Flatten"], id="dimensions dropped"),
    ],
)
def test_means_over_height_and_width_become_pooling(keepdims, kinds):
    axes = numpy_helper.from_array(np.array([-1, -2]), "axes")
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], "mean", keepdims=keepdims)
    graph = helper.make_graph([node], "mean", [], [], [axes])
    pool_means(graph)
    assert [node.op_type for node in graph.node] == kinds
    assert (graph.node[0].input[0], graph.node[-1].output[0]) == ("x", "y")


def test_other_means_stay():
    axes = numpy_helper.from_array(np.array([1]), "axes")
    graph = helper.make_graph([helper.make_node("ReduceMean", ["x", "axes"], ["y"])], "mean", [], [], [axes])
    pool_means(graph)
    assert [node.op_type for node in graph.node] == ["ReduceMean"]


def test_narrow_beginning_stays_float():
    weights = [numpy_helper.from_array(np.zeros((c, 1, 1, 1), np.float32), f"w{c}") for c in (8, 64)]
    nodes = [helper.make_node("Conv", ["x", "w8"], ["a"], "first"), helper.make_node("Relu", ["a"], ["b"], "relu")]
    nodes.append(helper.make_node("Conv", ["b", "w64"], ["c"], "second"))
    graph = helper.make_graph(nodes, "convs", [], [], weights)
    assert float_nodes(graph, 64) == ["first", "relu"]
    assert float_nodes(graph, 65) == float_nodes(graph, 0) == []


def test_trained_codes_stay_and_the_rest_is_calibrated(tmp_path):
    model = small()
    Quantizer(ALL, 4, None).attach(model)
    images = torch.randn(64, *SPEC.size)
    network = Network(settle(model, images), {}, list("abcde"), SPEC)
    told = export_int8(network, tmp_path / "int8.onnx", images, wide=0)
    assert told["trained_weights"] == 3
    assert told["float_layers"] == 0
    assert [file.name for file in tmp_path.iterdir()] == ["int8.onnx"]
    found = check_onnx(tmp_path / "int8.onnx", network.model, images, fused=True)
    assert found["equal_predictions"] > 0.9
    assert found["max_abs_deviation"] < 0.1 * found["max_abs_logit"]
    tensors = [t for t in onnx.load(tmp_path / "int8.onnx").graph.initializer if t.data_type == onnx.TensorProto.INT8]
    weights = [numpy_helper.to_array(t) for t in tensors if len(t.dims) > 1]
    assert len(weights) == 3
    assert all(np.abs(w).max() <= 15 for w in weights)  # 4-bit codes around their zero points


def test_shifts_of_nearly_dead_channels_are_kept(tmp_path):
    model = nearly_dead(1e-7)
    images = torch.randn(32, *SPEC.size)
    with torch.no_grad():
        model.train()(images)
    network = Network(model.eval(), {}, list("abcde"), SPEC)
    path = tmp_path / "int8.onnx"
    export_int8(network, path, images, wide=0)
    for fused in (True, False):
        found = check_onnx(path, model, images, fused)
        assert found["max_abs_deviation"] < 0.05 * found["max_abs_logit"]


@pytest.mark.parametrize("bits", [4, 8])
def test_trained_ranges_stay_and_no_quantiser_is_added(tmp_path, bits):
    model = small()
    Quantizer(ALL, bits, bits).attach(model)
    images = torch.randn(8, *SPEC.size)
    network = Network(settle(model, images), {}, list("abcde"), SPEC)
    path = tmp_path / "int8.onnx"
    told = export_int8(network, path, 100 * images)  # whose ranges are not the network's
    assert told["trained_ranges"]
    assert told["trained_weights"] == 3
    proto = onnx.load(path)
    kinds = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant":
            kinds[node.output[0]] = node.attribute[0].t.data_type
    quantisers = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    assert [kinds[node.input[2]] for node in quantisers] == 3 * [onnx.TensorProto.UINT8]
    found = check_onnx(path, network.model, images)
    assert found["max_abs_deviation"] < 1e-5
    if bits == 8:  # onnxruntime rounds biases to the unit of the products, which 4 bits make coarse
        fused = check_onnx(path, network.model, images, fused=True)
        assert fused["equal_predictions"] == 1
        assert fused["max_abs_deviation"] < 0.02 * fused["max_abs_logit"]


@pytest.mark.parametrize(
    ("symmetric", "coded"), [pytest.param(True, 2, id="symmetric"), pytest.param(False, 1, id="zero points")]
)
def test_grouped_weights_with_zero_points_of_their_own_are_floats(tmp_path, symmetric, coded):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 10 * 10, 5))
    Quantizer(ALL, 8, 8, weight=RangeLinear(symmetric=symmetric)).attach(model)
    images = torch.randn(4, *SPEC.size)
    network = Network(settle(model, images), {}, list("abcde"), SPEC)
    path = tmp_path / "int8.onnx"
    assert export_int8(network, path, images)["trained_weights"] == coded
    assert check_onnx(path, network.model, images)["max_abs_deviation"] < 1e-5


def test_logits_of_a_float_network_are_not_quantised():
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"]),
        helper.make_node("QuantizeLinear", ["a", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["logits"]),
    ]
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "last", [], [logits])
    keep_logits_float(graph)
    (node,) = graph.node
    assert (node.op_type, list(node.output)) == ("Gemm", ["logits"])


@pytest.mark.slow
def test_large_network_is_quantised_through_files_with_data_beside_them(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "MOST_BYTES", 1000)
    model = small()
    images = torch.randn(16, *SPEC.size)
    network = Network(settle(model, images), {}, list("abcde"), SPEC)
    path = tmp_path / "int8.onnx"
    told = export_int8(network, path, images, wide=0)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["int8.onnx", "int8.onnx.data"]
    assert told["bytes"] == sum(file.stat().st_size for file in files)
    found = check_onnx(path, model, images, fused=True)
    assert found["max_abs_deviation"] < 0.1 * found["max_abs_logit"]
