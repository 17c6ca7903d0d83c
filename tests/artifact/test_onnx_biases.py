"""Biases of integer layers keep their values: those beside few bits, and those of channels that are nearly dead."""

import numpy as np
from onnx import helper, numpy_helper

from micronet_cli.artifact.onnx_biases import hold_biases
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
