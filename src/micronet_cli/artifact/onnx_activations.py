"""4-bit activations as runtimes take them: bounds that are not fused away, wider codes where no kernel knows 4 bits."""

from collections import defaultdict

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper
from onnx.helper import make_node

from micronet_cli.artifact.onnx_graph import EIGHT_BITS, Index, insert_before, integer_layers, replace_node
from micronet_cli.artifact.onnx_types import FOUR_BITS, RANGES


def split_bounds(graph: GraphProto) -> None:
    """Make Max and Min of a Clip or Relu before a 4-bit QuantizeLinear.

    onnxruntime 1.32 fails to fuse such a Clip, and drops such a Relu although codes below that of 0 are left to it.
    """
    quantised = _read_at_4_bits(graph)
    for node in list(graph.node):
        zero_points = quantised.get(node.output[0], [])
        if node.op_type == "Clip" and zero_points:
            _split_clip(graph, node)
        if node.op_type == "Relu" and _leave_codes_below(zero_points):
            _split_relu(graph, node)


def _split_clip(graph: GraphProto, node: NodeProto) -> None:
    x, low, high = node.input
    (output,) = node.output
    between = f"{output}.above"
    at_least = make_node("Max", [x, low], [between], f"{node.name}.max")
    at_most = make_node("Min", [between, high], [output], f"{node.name}.min")
    replace_node(graph, node, [at_least, at_most])


def _split_relu(graph: GraphProto, node: NodeProto) -> None:
    (x,) = node.input
    (output,) = node.output
    value = np.zeros((), np.float32)
    zero = numpy_helper.from_array(value, f"{output}.least")
    graph.initializer.append(zero)
    at_least = make_node("Max", [x, zero.name], [output], f"{node.name}.max")
    replace_node(graph, node, [at_least])


def _leave_codes_below(zero_points: list[TensorProto]) -> bool:
    """Whether one of them is above the lowest code of its type."""
    for zero_point in zero_points:
        lowest, _ = RANGES[zero_point.data_type]
        code_of_0 = numpy_helper.to_array(zero_point)
        if code_of_0 > lowest:
            return True
    return False


def _read_at_4_bits(graph: GraphProto) -> dict[str, list[TensorProto]]:
    """Tensors that a 4-bit QuantizeLinear reads -> its zero point, for each that does."""
    constants = Index.of(graph).constants
    quantised: defaultdict[str, list[TensorProto]] = defaultdict(list)
    for node in graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        x, _, zero_point_name = node.input
        zero_point = constants[zero_point_name]
        if zero_point.data_type in FOUR_BITS:
            quantised[x].append(zero_point)
    return quantised


def widen_inputs(graph: GraphProto) -> None:
    """Give 4-bit inputs of layers with 8-bit weights 16 bits, clipped to their 16 codes.

    onnxruntime makes an integer convolution of 4 and 8 bits, for which it has no kernel; 16 bits it leaves alone.
    """
    index = Index.of(graph)
    for layer in integer_layers(index):
        if layer.source is None or layer.weight_kind not in EIGHT_BITS:
            continue
        quantize = index.maker(layer.source.input[0], "QuantizeLinear")
        if layer.source_kind in FOUR_BITS and quantize is not None:
            _widen(index, quantize, layer.source, np.uint16)


def widen_activations(graph: GraphProto) -> None:
    """Give all 4-bit activations 8 bits, clipped to their 16 codes, for kernels that know no narrower integers."""
    index = Index.of(graph)
    for node in list(graph.node):
        if node.op_type != "DequantizeLinear":
            continue
        quantize = index.maker(node.input[0], "QuantizeLinear")
        if quantize is None:
            continue
        zero_point = index.constants[quantize.input[2]]
        if zero_point.data_type in FOUR_BITS:
            _widen(index, quantize, node, np.uint8)


def _widen(index: Index, quantize: NodeProto, dequantize: NodeProto, kind: type[np.unsignedinteger]) -> None:
    """Let a pair of nodes compute with wider codes what it computes with 4-bit ones."""
    x, scale_name, zero_point_name = quantize.input
    scale = index.values(scale_name)
    zero_point = index.values(zero_point_name).astype(np.float32)
    name = dequantize.output[0]
    lowest = (0 - zero_point) * scale
    highest = (15 - zero_point) * scale
    low = numpy_helper.from_array(lowest, f"{name}.low")
    high = numpy_helper.from_array(highest, f"{name}.high")
    wide = numpy_helper.from_array(zero_point.astype(kind), f"{name}.zero_point")
    index.store(low, high, wide)
    clipped = f"{name}.clipped"
    clip = make_node("Clip", [x, low.name, high.name], [clipped], clipped)
    insert_before(index.graph, quantize, clip)
    quantize.input[0] = clipped
    quantize.input[2] = wide.name
    dequantize.input[2] = wide.name
