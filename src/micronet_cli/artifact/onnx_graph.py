"""An exported graph made ready: the narrowest integer types, no traces of where it was made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper
from onnx.helper import make_node, tensor_dtype_to_np_dtype

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
BIAS_STEPS = 2**30  # from 0 to the power of two above the largest bias


def replace_node(graph: GraphProto, node: NodeProto, parts: Sequence[NodeProto]) -> None:
    """Put ``parts``, in their order, in a node's place."""
    place = list(graph.node).index(node)
    graph.node.remove(node)
    for part in reversed(parts):
        graph.node.insert(place, part)


def pack_codes(graph: GraphProto) -> None:
    """Give the codes and zero points of every weight the narrowest type that holds them.

    Signed and without an offset where one zero point serves all channels, since integer kernels expect that.
    """
    tensors = _stored(graph)
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
            centred = wide.centred()
            narrow = centred.renamed(f"{output}.codes", f"{output}.zero_point")
            graph.initializer.extend(narrow.tensors())
            packed[given] = narrow
        replacement = packed[given]
        node.input[0] = replacement.codes_name
        node.input[2] = replacement.zero_point_name
    replaced: set[str] = set()
    for given in packed:
        replaced.update(given)
    for name in replaced:
        graph.initializer.remove(tensors[name])


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

    def centred(self) -> "Codes":
        """Signed around 0 where one zero point serves all channels and no bit is lost by it."""
        first = self.zero_point[0]
        if (self.zero_point != first).any():
            return self
        signed = self.codes - first
        signed_bits = bits(narrowest(signed))
        unsigned_bits = bits(narrowest(self.codes))
        if signed_bits > unsigned_bits:
            return self
        zeros = np.zeros_like(self.zero_point)
        return replace(self, codes=signed, zero_point=zeros)

    def tensors(self) -> list[TensorProto]:
        """Both in the narrowest type that holds both."""
        flat = [self.codes.ravel(), self.zero_point.ravel()]
        all_values = np.concatenate(flat)
        kind = narrowest(all_values)
        dtype = tensor_dtype_to_np_dtype(kind)
        codes = self.codes.astype(dtype)
        zero_point = self.zero_point.astype(dtype)
        return [
            numpy_helper.from_array(codes, self.codes_name),
            numpy_helper.from_array(zero_point, self.zero_point_name),
        ]


def split_clips(graph: GraphProto) -> None:
    """Make Max and Min of a Clip before a 4-bit QuantizeLinear: onnxruntime's fusion of the two fails on 4 bits."""
    quantised = _read_at_4_bits(graph)
    for node in list(graph.node):
        if node.op_type != "Clip" or node.output[0] not in quantised:
            continue
        x, low, high = node.input
        output = node.output[0]
        between = f"{output}.above"
        at_least = make_node("Max", [x, low], [between], f"{node.name}.max")
        at_most = make_node("Min", [between, high], [output], f"{node.name}.min")
        replace_node(graph, node, [at_least, at_most])


def _read_at_4_bits(graph: GraphProto) -> set[str]:
    """Names of the tensors that a QuantizeLinear reads whose zero point has 4 bits."""
    four_bits: set[str] = set()
    for tensor in graph.initializer:
        if tensor.data_type in FOUR_BITS:
            four_bits.add(tensor.name)
    for node in graph.node:
        if node.op_type != "Constant":
            continue
        constant = node.attribute[0].t
        if constant.data_type in FOUR_BITS:
            four_bits.add(node.output[0])

    quantised: set[str] = set()
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[2] in four_bits:
            quantised.add(node.input[0])
    return quantised


def hold_biases(graph: GraphProto) -> None:
    """Give biases beside weights of less than 8 bits a scale of their own, 2^-30 of the largest.

    onnxruntime rounds a float bias to the unit of the integer products, which is coarse where operands have few bits.
    """
    tensors = _stored(graph)
    held: set[str] = set()
    for node in _few_bit_layers(graph, tensors):
        name = node.input[2]
        value = f"{name}.value"
        if name not in held:  # equal biases of several layers are one tensor
            held.add(name)
            bias = numpy_helper.to_array(tensors[name])
            parts = _bias_parts(name, bias)
            graph.initializer.extend(parts)
            inputs = [part.name for part in parts]
            dequantize = make_node("DequantizeLinear", inputs, [value], name)
            place = list(graph.node).index(node)
            graph.node.insert(place, dequantize)
        node.input[2] = value
    still_read = _inputs(graph)
    for name in held - still_read:
        graph.initializer.remove(tensors[name])


def _few_bit_layers(graph: GraphProto, tensors: Mapping[str, TensorProto]) -> list[NodeProto]:
    """Layers with a stored bias and a weight of less than 8 bits."""
    makers: dict[str, NodeProto] = {}
    for node in graph.node:
        for output in node.output:
            makers[output] = node

    found = []
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        if len(node.input) < 3:
            continue
        _, weight_name, bias_name = node.input
        if bias_name not in tensors:
            continue
        weight = makers.get(weight_name)
        if weight is None or weight.op_type != "DequantizeLinear":
            continue
        codes = tensors[weight.input[0]]
        if bits(codes.data_type) < 8:
            found.append(node)
    return found


def _bias_parts(name: str, bias: np.ndarray) -> list[TensorProto]:
    """A bias as int32 and a scale, a power of two."""
    tiny = np.finfo(np.float32).tiny  # a bias of zeros has a scale above 0 too
    magnitudes = np.abs(bias)
    largest = max(magnitudes.max(), tiny)
    exponent = np.ceil(np.log2(largest))
    power = np.exp2(exponent)
    scale = max(power / BIAS_STEPS, tiny)
    integers = np.round(bias / scale).astype(np.int32)
    stored_scale = np.asarray(np.float32(scale))
    return [
        numpy_helper.from_array(integers, f"{name}.int32"),
        numpy_helper.from_array(stored_scale, f"{name}.scale"),
    ]


def _stored(graph: GraphProto) -> dict[str, TensorProto]:
    """Name -> stored tensor."""
    return {tensor.name: tensor for tensor in graph.initializer}


def _inputs(graph: GraphProto) -> set[str]:
    """Names of all tensors that a node reads."""
    return {name for node in graph.node for name in node.input}


def remove_unread(graph: GraphProto) -> None:
    """Take away the stored tensors that no node reads."""
    read = _inputs(graph)
    for tensor in list(graph.initializer):
        if tensor.name not in read:
            graph.initializer.remove(tensor)


def strip(graph: GraphProto) -> None:
    """Take away stack traces, and the types that tensors had before."""
    del graph.value_info[:]
    for value in [*graph.node, *graph.initializer]:
        del value.metadata_props[:]


def narrowest(values: np.ndarray) -> int:
    """The narrowest type that holds ``values``.

    >>> [TensorProto.DataType.Name(narrowest(np.array(v))) for v in ([-8, 7], [0, 15], [-1, 15], [0, 300])]
    ['INT4', 'UINT4', 'INT8', 'INT16']

    Raises:
        ValueError: none does.
    """
    low = int(values.min())
    high = int(values.max())
    for kind, (least, most) in RANGES.items():
        if least <= low and high <= most:
            return kind
    raise ValueError(f"values={low} .. {high}: must fit 16 bits")


def bits(kind: int) -> int:
    """Bits of a type.

    >>> bits(TensorProto.UINT4)
    4
    """
    least, most = RANGES[kind]
    return (most - least).bit_length()
