"""An exported graph made ready: the narrowest integer types, no traces of where it was made."""

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


def pack_codes(graph: onnx.GraphProto) -> None:
    """Give the codes and zero points of every weight the narrowest type that holds them.

    Signed and without an offset where one zero point serves all channels, as integer kernels want it.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    packed: dict[tuple[str, str], tuple[str, str]] = {}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in tensors:
            continue
        given = (node.input[0], node.input[2])
        if given not in packed:
            # Equal zero points of several layers are one tensor, and may need several types.
            packed[given] = (f"{node.output[0]}.codes", f"{node.output[0]}.zero_point")
            values = _centred(*(numpy_helper.to_array(tensors[name]) for name in given))
            kind = narrowest(np.concatenate([value.ravel() for value in values]))
            graph.initializer.extend(_tensor(name, kind, v) for name, v in zip(packed[given], values, strict=True))
        node.input[0], node.input[2] = packed[given]
    for name in {name for given in packed for name in given}:
        graph.initializer.remove(tensors[name])


def _centred(codes: np.ndarray, zero_point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes and zero points, signed around 0 where one zero point serves all channels and no bit is lost by it."""
    if (zero_point != zero_point[0]).any():
        return codes, zero_point
    signed = codes - zero_point[0]
    return (codes, zero_point) if bits(narrowest(signed)) > bits(narrowest(codes)) else (signed, zero_point * 0)


def split_clips(graph: onnx.GraphProto) -> None:
    """Make Max and Min of a Clip before a 4-bit QuantizeLinear: onnxruntime's fusion of the two fails on 4 bits."""
    narrow = (onnx.TensorProto.UINT4, onnx.TensorProto.INT4)
    four_bits = {tensor.name for tensor in graph.initializer if tensor.data_type in narrow}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].t.data_type in narrow:
            four_bits.add(node.output[0])
    quantised = {n.input[0] for n in graph.node if n.op_type == "QuantizeLinear" and n.input[2] in four_bits}
    for node in [n for n in graph.node if n.op_type == "Clip" and n.output[0] in quantised]:
        x, low, high = node.input
        between = f"{node.output[0]}.above"
        parts = [
            onnx.helper.make_node("Max", [x, low], [between], f"{node.name}.max"),
            onnx.helper.make_node("Min", [between, high], list(node.output), f"{node.name}.min"),
        ]
        at = list(graph.node).index(node)
        graph.node.remove(node)
        for part in reversed(parts):
            graph.node.insert(at, part)


def hold_biases(graph: onnx.GraphProto) -> None:
    """Give biases beside weights of less than 8 bits a scale of their own, 2^-30 of the largest.

    onnxruntime rounds a float bias to the unit of the integer products, which is coarse where operands have few bits.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    held: set[str] = set()
    for node in list(graph.node):
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3 or node.input[2] not in tensors:
            continue
        weight = makers.get(node.input[1])
        if weight is None or weight.op_type != "DequantizeLinear" or bits(tensors[weight.input[0]].data_type) >= 8:
            continue
        name = node.input[2]
        if name not in held:  # equal biases of several layers are one tensor
            held.add(name)
            bias = numpy_helper.to_array(tensors[name])
            scale = np.exp2(np.ceil(np.log2(max(np.abs(bias).max(), np.finfo(np.float32).tiny)))) / 2**30
            parts = {f"{name}.int32": np.round(bias / scale).astype(np.int32), f"{name}.scale": np.float32(scale)}
            graph.initializer.extend(numpy_helper.from_array(np.asarray(part), key) for key, part in parts.items())
            dequantize = onnx.helper.make_node("DequantizeLinear", list(parts), [f"{name}.value"], name)
            graph.node.insert(list(graph.node).index(node), dequantize)
        node.input[2] = f"{name}.value"
    for unused in held - {read for node in graph.node for read in node.input}:
        graph.initializer.remove(tensors[unused])


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
    low, high = int(values.min()), int(values.max())
    for kind, (least, most) in RANGES.items():
        if least <= low and high <= most:
            return kind
    raise ValueError(f"values={low} .. {high}: 16 bits at most are wanted")


def bits(kind: int) -> int:
    """Bits of a type.

    >>> bits(onnx.TensorProto.UINT4)
    4
    """
    least, most = RANGES[kind]
    return (most - least).bit_length()


def _tensor(name: str, kind: int, values: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(values.astype(onnx.helper.tensor_dtype_to_np_dtype(kind)), name)
