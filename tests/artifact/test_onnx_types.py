"""Types of codes: the narrowest that holds them, and none that a runtime cannot take."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from micronet_cli.artifact.onnx_types import bits, narrowest, pack_codes


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
