"""Biases of integer layers keep their values: those beside few bits, and those of channels that are nearly dead."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from micronet_cli.artifact.onnx_biases import fit_biases, float_biases, hold_biases
from micronet_cli.artifact.onnx_types import pack_codes
from tests.artifact.test_onnx_types import weight_graph


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


SCALE = 0.25  # of the input


def eight_bit_graph(weight_scale, bias, int32=False):
    """Two channels with codes 100 and -50 on an 8-bit input; the bias float, or int32 at any scale."""
    tensors = {
        "x.scale": np.float32(SCALE),
        "x.zero": np.uint8(0),
        "codes": np.array([[100], [-50]], np.int8),
        "scale": np.array(weight_scale, np.float32),
        "zero": np.zeros(2, np.int8),
        "bias": np.array(bias, np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x.scale", "x.zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "x.scale", "x.zero"], ["x.value"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["weight"], "weight", axis=0),
    ]
    name = "bias"
    if int32:
        tensors["bias"] = np.array([2**31 - 1, 12], np.int32)
        tensors["bias.unit"] = np.ones(2, np.float32)
        nodes.append(helper.make_node("DequantizeLinear", ["bias", "bias.unit"], ["bias.value"], axis=0))
        name = "bias.value"
    nodes.append(helper.make_node("Gemm", ["x.value", "weight", name], ["y"], "layer", transB=1))
    stored = [numpy_helper.from_array(np.asarray(values), key) for key, values in tensors.items()]
    return helper.make_graph(nodes, "layer", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], stored)


def tensors_of(graph):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def test_nearly_dead_channel_gets_a_scale_in_which_its_bias_fits():
    graph = eight_bit_graph([1e-12, 0.5], [0.3, 0.3])
    fit_biases(graph, float_biases(graph))
    tensors = tensors_of(graph)
    np.testing.assert_allclose(tensors["layer.scale"], [0.3 / 2**30 / SCALE, 0.5], rtol=1e-6)
    assert tensors["layer.codes"].tolist() == [[0], [-50]]
    assert tensors["bias"].tolist() == np.array([0.3, 0.3], np.float32).tolist()
    assert "scale" not in tensors
    assert "codes" not in tensors


def test_stored_int32_bias_follows_the_scale():
    graph = eight_bit_graph([1e-12, 0.5], [0, 0], int32=True)
    fit_biases(graph, {"layer": np.array([-0.3, 1.5], np.float32)})
    tensors = tensors_of(graph)
    assert tensors["layer.bias.int32"].tolist() == [-(2**30), 12]
    values = tensors["layer.bias.int32"] * tensors["layer.bias.scale"]
    np.testing.assert_allclose(values, [-0.3, 1.5], rtol=1e-6)
    assert graph.node[-1].input[2] == "layer.bias.value"
    assert "bias" not in tensors


def test_biases_that_fit_leave_the_graph_as_it_is():
    graph = eight_bit_graph([0.5, 0.5], [0.3, 0.3])
    before = graph.SerializeToString()
    fit_biases(graph, float_biases(graph))
    assert graph.SerializeToString() == before


def test_channel_of_zeros_does_not_round_its_bias_coarser_than_others():
    graph = eight_bit_graph([1.0, 0.5], [0.3, 0.3])
    codes = numpy_helper.from_array(np.array([[0], [-50]], np.int8), "codes")
    graph.initializer[2].CopyFrom(codes)
    fit_biases(graph, float_biases(graph))
    assert tensors_of(graph)["layer.scale"].tolist() == [0.5, 0.5]


def test_scales_never_fall_below_the_smallest_normal_number():
    graph = eight_bit_graph([1e-45, 0.5], [0.0, 0.0])
    fit_biases(graph, float_biases(graph))
    tiny = np.finfo(np.float32).tiny
    assert tensors_of(graph)["layer.scale"][0] >= tiny / SCALE
