"""4-bit activations: which bounds are spelt out, and which codes are widened without a change of values."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from micronet_cli.artifact.onnx_activations import split_bounds, widen_inputs


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
