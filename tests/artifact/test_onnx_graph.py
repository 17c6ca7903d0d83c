"""Passes over a graph: narrow types, held biases, split clips."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from micronet_cli.artifact.onnx_graph import (
    bits,
    hold_biases,
    narrowest,
    pack_codes,
    remove_unread,
    replace_node,
    split_clips,
    strip,
)


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


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        pytest.param(TensorProto.UINT4, ["Max", "Min"], id="4 bits"),
        pytest.param(TensorProto.UINT8, ["Clip"], id="8 bits"),
    ],
)
def test_only_clips_before_4_bits_are_split(kind, parts):
    nodes = [
        helper.make_node("Clip", ["x", "low", "high"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "scale", "zero"], ["q"]),
    ]
    graph = helper.make_graph(nodes, "clip", [], [], [helper.make_tensor("zero", kind, [], [0])])
    split_clips(graph)
    assert [node.op_type for node in graph.node] == [*parts, "QuantizeLinear"]
    assert graph.node[len(parts)].input[0] == graph.node[len(parts) - 1].output[0] == "c"


RANGES = {
    "negative bits": ([-8, 7], TensorProto.INT4),
    "zero alone": ([0], TensorProto.INT4),
    "15": ([0, 15], TensorProto.UINT4),
    "one below": ([-9, 7], TensorProto.INT8),
    "one above": ([0, 16], TensorProto.INT8),
    "unsigned byte": ([0, 128], TensorProto.UINT8),
    "both signs": ([-1, 128], TensorProto.INT16),
    "unsigned word": ([0, 32768], TensorProto.UINT16),
}


@pytest.mark.parametrize("case", RANGES)
def test_narrowest_type_holds_both_ends(case):
    values, kind = RANGES[case]
    assert narrowest(np.array(values)) == kind


def test_types_have_their_bits():
    kinds = ("INT4", "UINT4", "INT8", "UINT8", "INT16", "UINT16")
    assert [bits(getattr(TensorProto, kind)) for kind in kinds] == [4, 4, 8, 8, 16, 16]


def identity(source, output):
    return helper.make_node("Identity", [source], [output])


def test_parts_take_the_place_of_their_node_in_order():
    graph = helper.make_graph([identity("a", "b"), identity("b", "c"), identity("c", "d")], "chain", [], [])
    replace_node(graph, graph.node[1], [identity("b", "x"), identity("x", "c")])
    assert [node.output[0] for node in graph.node] == ["b", "x", "c", "d"]


def test_tensors_that_no_node_reads_are_taken_away():
    tensors = [numpy_helper.from_array(np.zeros(1, np.float32), name) for name in ("read", "unread")]
    graph = helper.make_graph([identity("read", "y")], "reader", [], [], tensors)
    remove_unread(graph)
    assert [tensor.name for tensor in graph.initializer] == ["read"]


def test_strip_takes_traces_of_where_the_graph_was_made():
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), "w")
    graph = helper.make_graph([identity("w", "y")], "traced", [], [], [tensor])
    graph.value_info.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]))
    graph.node[0].metadata_props.add(key="stack", value="/home/a/train.py")
    graph.initializer[0].metadata_props.add(key="stack", value="/home/a/train.py")
    strip(graph)
    assert b"train.py" not in graph.SerializeToString()
    assert not graph.value_info


def test_biases_beside_8_bit_weights_stay_float():
    graph = weight_graph([[[0, 200], [3, 0]]], [4, 2])
    graph.node.append(helper.make_node("Gemm", ["x", "weight0", "bias"], ["y"], transB=1))
    graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "bias"))
    pack_codes(graph)
    hold_biases(graph)
    assert [node.op_type for node in graph.node] == ["DequantizeLinear", "Gemm"]
    assert graph.node[1].input[2] == "bias"


def test_bias_of_zeros_is_held_with_a_scale_above_zero():
    graph = weight_graph([[[0, 15], [3, 0]]], [4, 2])
    graph.node.append(helper.make_node("Gemm", ["x", "weight0", "bias"], ["y"], transB=1))
    graph.initializer.append(numpy_helper.from_array(np.zeros(2, np.float32), "bias"))
    pack_codes(graph)
    hold_biases(graph)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert tensors["bias.int32"].tolist() == [0, 0]
    assert tensors["bias.scale"] > 0
    assert "bias" not in tensors


def test_codes_that_would_take_more_bits_around_zero_stay_unsigned():
    graph = weight_graph([[[0, 15], [1, 2]]], [1, 1])
    pack_codes(graph)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    assert tensors["weight0.codes"].data_type == TensorProto.UINT4
    assert numpy_helper.to_array(tensors["weight0.zero_point"]).astype(int).tolist() == [1, 1]
