"""Types of codes: the narrowest that holds them, and none that a runtime cannot take."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from micronet_cli.artifact.onnx_types import bits, narrowest, pack_codes, split_bounds, widen_inputs


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
    split_bounds(graph)
    assert [node.op_type for node in graph.node] == [*parts, "QuantizeLinear"]
    assert graph.node[len(parts)].input[0] == graph.node[len(parts) - 1].output[0] == "c"


@pytest.mark.parametrize(
    ("zero_point", "operator"), [(0, "Relu"), (4, "Max")], ids=["no code below 0", "codes below 0"]
)
def test_relu_before_4_bits_is_spelt_out_where_onnxruntime_would_drop_it(zero_point, operator):
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["y"]),
    ]
    tensors = [
        helper.make_tensor("step", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("zero", TensorProto.UINT4, [], [zero_point]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "relu", ends[:1], ends[1:], tensors)
    split_bounds(graph)
    assert [node.op_type for node in graph.node] == [operator, "QuantizeLinear", "DequantizeLinear"]
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    runtime = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = runtime.run(["y"], {"x": np.array([-3, -1, 0, 2], np.float32)})
    assert found.tolist() == [0, 0, 0, 2]


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


def test_codes_that_would_take_more_bits_around_zero_stay_unsigned():
    graph = weight_graph([[[0, 15], [1, 2]]], [1, 1])
    pack_codes(graph)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    assert tensors["weight0.codes"].data_type == TensorProto.UINT4
    assert numpy_helper.to_array(tensors["weight0.zero_point"]).astype(int).tolist() == [1, 1]


def mixed_graph(weight_type):
    """A 4-bit input of a layer without bias."""
    stored = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [0.5]),
        helper.make_tensor("x.zero", TensorProto.UINT4, [], [3]),
        helper.make_tensor("codes", weight_type, [1, 1], [1]),
        helper.make_tensor("zero", weight_type, [1], [0]),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "x.zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "x.zero"], ["value"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["weight"], axis=0),
        helper.make_node("MatMul", ["value", "weight"], ["y"]),
    ]
    return helper.make_graph(nodes, "mixed", [], [], stored)


def test_4_bit_input_of_an_8_bit_weight_takes_16_bits_and_keeps_its_codes():
    graph = mixed_graph(TensorProto.INT8)
    widen_inputs(graph)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    clip, quantize, dequantize = graph.node[:3]
    assert clip.op_type == "Clip"
    assert [float(tensors[name]) for name in clip.input[1:]] == [-1.5, 6.0]
    assert quantize.input[0] == clip.output[0]
    assert quantize.input[2] == dequantize.input[2]
    zero_point = tensors[quantize.input[2]]
    assert (zero_point.dtype, int(zero_point)) == (np.uint16, 3)


def test_4_bit_input_of_a_4_bit_weight_stays():
    graph = mixed_graph(TensorProto.INT4)
    before = graph.SerializeToString()
    widen_inputs(graph)
    assert graph.SerializeToString() == before
