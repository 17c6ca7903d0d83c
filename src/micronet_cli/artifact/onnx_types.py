"""Codes of weights and activations in types that hold them and that runtimes take."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper
from onnx.helper import make_node, tensor_dtype_to_np_dtype

from micronet_cli.artifact.onnx_graph import (
    EIGHT_BITS,
    Index,
    insert_before,
    integer_layers,
    remove_unread,
    replace_node,
)

# From narrow to wide: (smallest, largest) value.
RANGES: dict[int, tuple[int, int]] = {
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT16: (0, 65535),
}
FOUR_BITS = (TensorProto.UINT4, TensorProto.INT4)


def pack_codes(graph: GraphProto, least_bits: int = 4) -> None:
    """Give the codes and zero points of every weight the narrowest type of at least ``least_bits`` that holds them.

    Signed and without an offset where one zero point serves all channels, since integer kernels expect that.
    """
    tensors = Index.of(graph).stored
    packed: dict[tuple[str, str], Codes] = {}
    for node in graph.node:
        if node.op_type != "DequantizeLinear":
            continue
        codes_name, _, zero_point_name = node.input
        if codes_name not in tensors:
            continue
        given = (codes_name, zero_point_name)
        if given not in packed:
            wide = Codes.of(tensors, given)
            # Equal zero points of several layers are one tensor, and may need several types.
            output = node.output[0]
            centred = wide.centred(least_bits)
            narrow = centred.renamed(f"{output}.codes", f"{output}.zero_point")
            graph.initializer.extend(narrow.tensors(least_bits))
            packed[given] = narrow
        replacement = packed[given]
        node.input[0] = replacement.codes_name
        node.input[2] = replacement.zero_point_name
    replaced: set[str] = set()
    for given in packed:
        replaced.update(given)
    for name in replaced:
        graph.initializer.remove(tensors[name])


def dequantize_slow_weights(graph: GraphProto) -> None:
    """Store the weights of grouped convolutions as floats where the channels' zero points differ.

    onnxruntime 1.32 has no fast kernel for them: 144 channels of 56 x 56 took 31 ms, with equal zero points 0.4 ms.
    """
    index = Index.of(graph)
    for node in list(graph.node):
        groups = [attribute.i for attribute in node.attribute if attribute.name == "group"]
        if node.op_type != "Conv" or groups in ([], [1]):
            continue
        dequantize = index.maker(node.input[1], "DequantizeLinear")
        if dequantize is None or dequantize.input[0] not in index.stored:
            continue
        codes, scale, zero_point = (index.values(name) for name in dequantize.input)
        if (zero_point == zero_point.flat[0]).all():
            continue
        by_channel = (-1, *[1] * (codes.ndim - 1))
        steps = codes.astype(np.float32) - zero_point.astype(np.float32).reshape(by_channel)
        weight = numpy_helper.from_array(steps * scale.reshape(by_channel), f"{dequantize.output[0]}.float")
        index.store(weight)
        node.input[1] = weight.name
    remove_unread(graph)


@dataclass(frozen=True)
class Codes:
    """A weight's codes ``[C_out, ...]`` and the zero points of its channels, ``[C_out]``, under their names."""

    codes: np.ndarray
    zero_point: np.ndarray
    codes_name: str
    zero_point_name: str

    @classmethod
    def of(cls, tensors: Mapping[str, TensorProto], names: tuple[str, str]) -> "Codes":
        """As they are stored."""
        codes_name, zero_point_name = names
        codes = numpy_helper.to_array(tensors[codes_name])
        zero_point = numpy_helper.to_array(tensors[zero_point_name])
        return cls(codes, zero_point, codes_name, zero_point_name)

    def renamed(self, codes_name: str, zero_point_name: str) -> "Codes":
        """The same under other names."""
        return replace(self, codes_name=codes_name, zero_point_name=zero_point_name)

    def centred(self, least_bits: int) -> "Codes":
        """Signed around 0 where one zero point serves all channels and no bit is lost by it."""
        first = self.zero_point[0]
        if (self.zero_point != first).any():
            return self
        signed = self.codes - first
        signed_bits = bits(narrowest(signed, least_bits))
        unsigned_bits = bits(narrowest(self.codes, least_bits))
        if signed_bits > unsigned_bits:
            return self
        zeros = np.zeros_like(self.zero_point)
        return replace(self, codes=signed, zero_point=zeros)

    def tensors(self, least_bits: int) -> list[TensorProto]:
        """Both in the narrowest type of at least so many bits that holds both."""
        flat = [self.codes.ravel(), self.zero_point.ravel()]
        all_values = np.concatenate(flat)
        kind = narrowest(all_values, least_bits)
        dtype = tensor_dtype_to_np_dtype(kind)
        codes = self.codes.astype(dtype)
        zero_point = self.zero_point.astype(dtype)
        return [
            numpy_helper.from_array(codes, self.codes_name),
            numpy_helper.from_array(zero_point, self.zero_point_name),
        ]


def split_bounds(graph: GraphProto) -> None:
    """Make Max and Min of a Clip or Relu before a 4-bit QuantizeLinear.

    onnxruntime 1.32 fails to fuse such a Clip, and drops such a Relu although codes below that of 0 are left to it.
    """
    quantised = _read_at_4_bits(graph)
    for node in list(graph.node):
        zero_points = quantised.get(node.output[0], [])
        if node.op_type == "Clip" and zero_points:
            _split_clip(graph, node)
        if node.op_type == "Relu" and any(_leaves_codes_below(zero_point) for zero_point in zero_points):
            _split_relu(graph, node)


def _split_clip(graph: GraphProto, node: NodeProto) -> None:
    x, low, high = node.input
    output = node.output[0]
    between = f"{output}.above"
    at_least = make_node("Max", [x, low], [between], f"{node.name}.max")
    at_most = make_node("Min", [between, high], [output], f"{node.name}.min")
    replace_node(graph, node, [at_least, at_most])


def _split_relu(graph: GraphProto, node: NodeProto) -> None:
    output = node.output[0]
    zero = numpy_helper.from_array(np.zeros((), np.float32), f"{output}.least")
    graph.initializer.append(zero)
    at_least = make_node("Max", [node.input[0], zero.name], [output], f"{node.name}.max")
    replace_node(graph, node, [at_least])


def _leaves_codes_below(zero_point: TensorProto) -> bool:
    lowest, _ = RANGES[zero_point.data_type]
    return bool(numpy_helper.to_array(zero_point) > lowest)


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
    low = numpy_helper.from_array((0 - zero_point) * scale, f"{name}.low")
    high = numpy_helper.from_array((15 - zero_point) * scale, f"{name}.high")
    wide = numpy_helper.from_array(zero_point.astype(kind), f"{name}.zero_point")
    index.store(low, high, wide)
    clipped = f"{name}.clipped"
    clip = make_node("Clip", [x, low.name, high.name], [clipped], clipped)
    insert_before(index.graph, quantize, clip)
    quantize.input[0] = clipped
    quantize.input[2] = wide.name
    dequantize.input[2] = wide.name


def narrowest(values: np.ndarray, least_bits: int = 4) -> int:
    """The narrowest type of at least ``least_bits`` that holds ``values``.

    >>> [TensorProto.DataType.Name(narrowest(np.array(v))) for v in ([-8, 7], [0, 15], [-1, 15], [0, 300])]
    ['INT4', 'UINT4', 'INT8', 'INT16']

    Raises:
        ValueError: none does.
    """
    low = int(values.min())
    high = int(values.max())
    for kind, (least, most) in RANGES.items():
        if bits(kind) >= least_bits and least <= low and high <= most:
            return kind
    raise ValueError(f"values={low} .. {high}: must fit 16 bits")


def bits(kind: int) -> int:
    """Bits of a type.

    >>> bits(TensorProto.UINT4)
    4
    """
    least, most = RANGES[kind]
    return (most - least).bit_length()
