"""Graphs cut at quantisers: in integers where runtimes take these, behind both nodes where they do not."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from micronet_cli.artifact.onnx_cuts import cut_at_quantizers
from micronet_cli.layers.integer import IntegerActivation

SCALE = 4.0  # codes a unit
ZERO = 3


def graph_of(kind):
    """Relu, a quantiser of the module ``q``, Neg."""
    zero_point = helper.make_tensor("zero", kind, [], [ZERO])
    step = numpy_helper.from_array(np.float32(1 / SCALE), "step")
    nodes = [
        helper.make_node("Relu", ["images"], ["x"], "relu"),
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["codes"], "q/quantize"),
        helper.make_node("DequantizeLinear", ["codes", "step", "zero"], ["value"], "q/dequantize"),
        helper.make_node("Neg", ["value"], ["logits"], "neg"),
    ]
    return helper.make_graph(nodes, "cut", [], [], [step, zero_point])


@pytest.mark.parametrize(
    ("kind", "output", "reader", "fed"),
    [
        pytest.param(TensorProto.UINT8, "codes", "q/dequantize", [[5, 0]], id="8 bits: integers"),
        pytest.param(TensorProto.UINT4, "value", "neg", [[0.5, -0.75]], id="4 bits: floats"),
    ],
)
def test_a_cut_hands_over_what_runtimes_take(kind, output, reader, fed):
    model = nn.ModuleDict({"q": IntegerActivation(8, SCALE, ZERO)})
    codes = {"q": [torch.tensor([[2, -3]], dtype=torch.int32)]}
    graph = graph_of(kind)
    (cut,) = cut_at_quantizers(graph, model, codes)
    assert (cut.module, cut.call, cut.output) == ("q", 0, output)
    readers = [node.name for node in graph.node if cut.given in node.input]
    assert readers == [reader]
    given = cut.fed(codes)
    assert given.tolist() == fed
    assert given.dtype == onnx.helper.tensor_dtype_to_np_dtype(cut.kind)
    assert cut.codes_of(given).tolist() == [[2, -3]]
    (shape,) = [value.type.tensor_type.shape for value in graph.input]
    assert [dim.dim_value for dim in shape.dim] == [0, 2]  # any number of images
