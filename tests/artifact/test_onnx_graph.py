"""Passes over a graph: narrow types, held biases, split clips."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from micronet_cli.artifact.onnx_graph import hold_biases, narrowest, pack_codes, split_clips


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
