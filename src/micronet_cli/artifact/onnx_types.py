"""Codes of weights in types that hold them and that runtimes take."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper
from onnx.helper import tensor_dtype_to_np_dtype

from micronet_cli.artifact.onnx_graph import Index, remove_unread

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
        if not _is_grouped_convolution(node):
            continue
        dequantize = index.maker(node.input[1], "DequantizeLinear")
        if dequantize is None or dequantize.input[0] not in index.stored:
            continue
        codes_name, scale_name, zero_point_name = dequantize.input
        zero_point = index.values(zero_point_name)
        if (zero_point == zero_point.flat[0]).all():
            continue
        codes = index.values(codes_name)
        scale = index.values(scale_name)
        values = _dequantized(codes, scale, zero_point)
        weight = numpy_helper.from_array(values, f"{dequantize.output[0]}.float")
        index.store(weight)
        node.input[1] = weight.name
    remove_unread(graph)


def _is_grouped_convolution(node: NodeProto) -> bool:
    if node.op_type != "Conv":
        return False
    for attribute in node.attribute:
        if attribute.name == "group":
            return attribute.i != 1
    return False


def _dequantized(codes: np.ndarray, scale: np.ndarray, zero_point: np.ndarray) -> np.ndarray:
    """``(codes - zero_point) * scale`` by output channel: ``[C_out, ...], [C_out], [C_out] -> [C_out, ...]``."""
    ones = [1] * (codes.ndim - 1)
    by_channel = (-1, *ones)
    zeros = zero_point.astype(np.float32).reshape(by_channel)
    steps = codes.astype(np.float32) - zeros
    return steps * scale.reshape(by_channel)


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
        holds_values = least <= low and high <= most
        if holds_values and bits(kind) >= least_bits:
            return kind
    raise ValueError(f"values={low} .. {high}: must fit 16 bits")


def bits(kind: int) -> int:
    """Bits of a type.

    >>> bits(TensorProto.UINT4)
    4
    """
    least, most = RANGES[kind]
    return (most - least).bit_length()
