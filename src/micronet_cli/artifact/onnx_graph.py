"""An exported graph made ready: the narrowest integer types, no traces of where it was made."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

# From narrow to wide: (smallest, largest) value.
RANGES: dict[int, tuple[int, int]] = {
    onnx.TensorProto.INT4: (-8, 7),
    onnx.TensorProto.UINT4: (0, 15),
    onnx.TensorProto.INT8: (-128, 127),
    onnx.TensorProto.UINT8: (0, 255),
    onnx.TensorProto.INT16: (-32768, 32767),
    onnx.TensorProto.UINT16: (0, 65535),
}
FOUR_BITS = (onnx.TensorProto.UINT4, onnx.TensorProto.INT4)
BIAS_STEPS = 2**30  # from 0 to the power of two above the largest bias


def replace_node(graph: onnx.GraphProto, node: onnx.NodeProto, parts: Sequence[onnx.NodeProto]) -> None:
    """Put ``parts``, in their order, in a node's place."""
    place = list(graph.node).index(node)
    graph.node.remove(node)
    for part in reversed(parts):
        graph.node.insert(place, part)


def pack_codes(graph: onnx.GraphProto) -> None:
    """Give the codes and zero points of every weight the narrowest type that holds them.

    Signed and without an offset where one zero point serves all channels, since integer kernels expect that.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    packed: dict[tuple[str, str], tuple[str, str]] = {}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in tensors:
            continue
        given = (node.input[0], node.input[2])
        if given not in packed:
            # Equal zero points of several layers are one tensor, and may need several types.
            names = (f"{node.output[0]}.codes", f"{node.output[0]}.zero_point")
            packed[given] = names
            graph.initializer.extend(_packed_tensors(tensors, given, names))
        codes_name, zero_point_name = packed[given]
        node.input[0] = codes_name
        node.input[2] = zero_point_name
    replaced: set[str] = set()
    for given in packed:
        replaced.update(given)
    for name in replaced:
        graph.initializer.remove(tensors[name])


def _packed_tensors(
    tensors: Mapping[str, onnx.TensorProto], given: tuple[str, str], names: tuple[str, str]
) -> list[onnx.TensorProto]:
    """Codes and zero points in the narrowest type that holds both."""
    given_codes, given_zero_point = (numpy_helper.to_array(tensors[name]) for name in given)
    codes, zero_point = _centred(given_codes, given_zero_point)
    all_values = np.concatenate([codes.ravel(), zero_point.ravel()])
    kind = narrowest(all_values)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    codes_name, zero_point_name = names
    return [
        numpy_helper.from_array(codes.astype(dtype), codes_name),
        numpy_helper.from_array(zero_point.astype(dtype), zero_point_name),
    ]


def _centred(codes: np.ndarray, zero_point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes and zero points, signed around 0 where one zero point serves all channels and no bit is lost by it."""
    if (zero_point != zero_point[0]).any():
        return codes, zero_point
    signed = codes - zero_point[0]
    signed_bits = bits(narrowest(signed))
    unsigned_bits = bits(narrowest(codes))
    if signed_bits > unsigned_bits:
        return codes, zero_point
    return signed, np.zeros_like(zero_point)


def split_clips(graph: onnx.GraphProto) -> None:
    """Make Max and Min of a Clip before a 4-bit QuantizeLinear: onnxruntime's fusion of the two fails on 4 bits."""
    four_bits = {tensor.name for tensor in graph.initializer if tensor.data_type in FOUR_BITS}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].t.data_type in FOUR_BITS:
            four_bits.add(node.output[0])
    quantised = set()
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[2] in four_bits:
            quantised.add(node.input[0])
    for node in list(graph.node):
        if node.op_type == "Clip" and node.output[0] in quantised:
            x, low, high = node.input
            output = node.output[0]
            between = f"{output}.above"
            at_least = onnx.helper.make_node("Max", [x, low], [between], f"{node.name}.max")
            at_most = onnx.helper.make_node("Min", [between, high], [output], f"{node.name}.min")
            replace_node(graph, node, [at_least, at_most])


def hold_biases(graph: onnx.GraphProto) -> None:
    """Give biases beside weights of less than 8 bits a scale of their own, 2^-30 of the largest.

    onnxruntime rounds a float bias to the unit of the integer products, which is coarse where operands have few bits.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    held: set[str] = set()
    for node in _few_bit_layers(graph, tensors):
        name = node.input[2]
        if name not in held:  # equal biases of several layers are one tensor
            held.add(name)
            parts = _bias_parts(name, numpy_helper.to_array(tensors[name]))
            graph.initializer.extend(parts)
            inputs = [part.name for part in parts]
            dequantize = onnx.helper.make_node("DequantizeLinear", inputs, [f"{name}.value"], name)
            place = list(graph.node).index(node)
            graph.node.insert(place, dequantize)
        node.input[2] = f"{name}.value"
    still_read = _inputs(graph)
    for name in held - still_read:
        graph.initializer.remove(tensors[name])


def _few_bit_layers(graph: onnx.GraphProto, tensors: Mapping[str, onnx.TensorProto]) -> list[onnx.NodeProto]:
    """Layers with a stored bias and a weight of less than 8 bits."""
    makers = {output: node for node in graph.node for output in node.output}
    found = []
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3 or node.input[2] not in tensors:
            continue
        weight = makers.get(node.input[1])
        if weight is None or weight.op_type != "DequantizeLinear":
            continue
        codes = tensors[weight.input[0]]
        if bits(codes.data_type) < 8:
            found.append(node)
    return found


def _bias_parts(name: str, bias: np.ndarray) -> list[onnx.TensorProto]:
    """A bias as int32 and a scale, a power of two."""
    tiny = np.finfo(np.float32).tiny  # a bias of zeros has a scale above 0 too
    largest = max(np.abs(bias).max(), tiny)
    power = np.exp2(np.ceil(np.log2(largest)))
    scale = max(power / BIAS_STEPS, tiny)
    integers = np.round(bias / scale).astype(np.int32)
    return [
        numpy_helper.from_array(integers, f"{name}.int32"),
        numpy_helper.from_array(np.asarray(np.float32(scale)), f"{name}.scale"),
    ]


def _inputs(graph: onnx.GraphProto) -> set[str]:
    """Names of all tensors that a node reads."""
    return {name for node in graph.node for name in node.input}


def remove_unread(graph: onnx.GraphProto) -> None:
    """Take away the stored tensors that no node reads."""
    read = _inputs(graph)
    for tensor in list(graph.initializer):
        if tensor.name not in read:
            graph.initializer.remove(tensor)


def strip(graph: onnx.GraphProto) -> None:
    """Take away stack traces, and the types that tensors had before."""
    del graph.value_info[:]
    for value in [*graph.node, *graph.initializer]:
        del value.metadata_props[:]


def narrowest(values: np.ndarray) -> int:
    """The narrowest type that holds ``values``.

    >>> [onnx.TensorProto.DataType.Name(narrowest(np.array(v))) for v in ([-8, 7], [0, 15], [-1, 15], [0, 300])]
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

    >>> bits(onnx.TensorProto.UINT4)
    4
    """
    least, most = RANGES[kind]
    return (most - least).bit_length()
