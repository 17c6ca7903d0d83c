"""Biases of integer layers: a runtime adds them as int32, in units of the input's scale times the weight's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, NodeProto, numpy_helper
from onnx.helper import make_node

from micronet_cli.artifact.onnx_graph import (
    LAYERS,
    Index,
    IntegerLayer,
    insert_before,
    integer_layers,
    remove_unread,
)
from micronet_cli.artifact.onnx_types import bits

# Half of int32: the products' sum, 2^15 at most for each input, has the other half.
BIAS_STEPS = 2**30
TINY = float(np.finfo(np.float32).tiny)


def float_biases(graph: GraphProto) -> dict[str, np.ndarray]:
    """Name of a convolution or linear layer -> its stored bias, ``[C_out]``."""
    stored = Index.of(graph).stored
    biases: dict[str, np.ndarray] = {}
    for node in graph.node:
        if node.op_type not in LAYERS or len(node.input) < 3:
            continue
        bias = stored.get(node.input[2])
        if bias is not None:
            biases[node.name] = numpy_helper.to_array(bias)
    return biases


def fit_biases(graph: GraphProto, biases: Mapping[str, np.ndarray]) -> None:
    """Raise the weight scales of channels whose bias does not fit int32 in their units: those that are nearly dead.

    Their codes are rounded again. That moves an output by less than 2^-20 of its bias, whatever the weights are: a bias
    that does not fit is 2^30 times what one step of weight and input makes.

    Args:
        graph: with weights in their narrowest types; biases float, or int32 behind a DequantizeLinear.
        biases: as ``float_biases`` found them.
    """
    index = Index.of(graph)
    raised = _raise_scales(index, biases)
    if not raised:
        return
    for layer in _eight_bit_layers(index):
        held_as_int32 = index.maker(layer.node.input[2], "DequantizeLinear") is not None
        if held_as_int32 and layer.weight.name in raised:
            unit = layer.input_scale * layer.scale.astype(np.float64)
            integers = np.round(biases[layer.node.name] / unit)
            name = f"{layer.node.name}.bias"
            _dequantize_before(index, layer.node, name, integers, unit, axis=0)
    remove_unread(graph)


def _raise_scales(index: Index, biases: Mapping[str, np.ndarray]) -> set[str]:
    """Round the codes again where a scale is too small; names of the DequantizeLinear that read others now."""
    raised: set[str] = set()
    for layer in _eight_bit_layers(index):
        bias = biases.get(layer.node.name)
        if bias is None:
            continue
        scale = layer.fitting_scale(bias.astype(np.float64))
        if (scale == layer.scale).all():
            continue
        codes = numpy_helper.from_array(layer.codes_at(scale), f"{layer.node.name}.codes")
        stored_scale = numpy_helper.from_array(scale, f"{layer.node.name}.scale")
        index.store(codes, stored_scale)
        layer.weight.input[0] = codes.name
        layer.weight.input[1] = stored_scale.name
        raised.add(layer.weight.name)
    return raised


@dataclass(frozen=True)
class EightBitLayer:
    """A layer that a runtime computes with 8-bit integers.

    Attributes:
        node: a convolution or linear layer.
        weight: the DequantizeLinear that makes its weight.
        input_scale: of its input.
        codes: of the weight, ``[C_out, ...]``.
        scale: of each output channel, float32 ``[C_out]``.
        zero_point: the same, of the codes' type.
    """

    node: NodeProto
    weight: NodeProto
    input_scale: float
    codes: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray

    def fitting_scale(self, bias: np.ndarray) -> np.ndarray:
        """Scales of the weight in whose units the bias fits int32, ``[C_out]``: the same where it does already."""
        scale = self.scale
        integers = self._integers().reshape(len(scale), -1)
        is_used = integers.any(1)
        if is_used.any():
            # A channel of zeros has an arbitrary scale, in which a bias must not be coarser than elsewhere.
            used = scale[is_used]
            is_coarse = ~is_used & (scale > used.max())
            scale = np.where(is_coarse, np.median(used), scale)
        unit = np.maximum(np.abs(bias) / BIAS_STEPS, TINY)
        smallest = np.maximum(unit / self.input_scale, TINY)
        return np.maximum(scale, smallest).astype(np.float32)

    def codes_at(self, scale: np.ndarray) -> np.ndarray:
        """The codes of the same weight at another scale, ``[C_out]``."""
        ratio = self.scale.astype(np.float64) / scale
        integers = np.round(self._integers() * self._along(ratio))
        codes = integers + self._along(self.zero_point)
        return codes.astype(self.codes.dtype)

    def _integers(self) -> np.ndarray:
        """The codes around their zero points, float64."""
        return self.codes.astype(np.float64) - self._along(self.zero_point)

    def _along(self, values: np.ndarray) -> np.ndarray:
        ones = [1] * (self.codes.ndim - 1)
        return values.astype(np.float64).reshape(-1, *ones)


def _eight_bit_layers(index: Index) -> Iterator[EightBitLayer]:
    """Layers with a bias whose weight and input have 8 bits."""
    for layer in integer_layers(index):
        if layer.bias is None or layer.source is None:
            continue
        if not layer.has_eight_bits:
            continue
        codes, scale, zero_point = layer.weight.input
        _, input_scale, _ = layer.source.input
        yield EightBitLayer(
            layer.node,
            layer.weight,
            input_scale=float(index.values(input_scale)),
            codes=index.values(codes),
            scale=index.values(scale),
            zero_point=index.values(zero_point),
        )


def hold_biases(graph: GraphProto) -> None:
    """Give biases beside operands of other than 8 bits a scale of their own, 2^-30 of the largest.

    onnxruntime rounds a float bias to the unit of the integer products, which is coarse where operands have few bits,
    and where they have many a bias in this unit does not fit int32. It computes the products with floats all the same.
    """
    index = Index.of(graph)
    values: dict[str, str] = {}
    for layer in integer_layers(index):
        node = layer.node
        name = layer.bias
        if name not in index.stored or not _needs_own_scale(layer):
            continue
        if name in values:  # equal biases of several layers are one tensor
            node.input[2] = values[name]
            continue
        bias = index.values(name)
        scale = _own_scale(bias)
        integers = np.round(bias / scale)
        _dequantize_before(index, node, name, integers, scale)
        values[name] = node.input[2]
    remove_unread(graph)


def _needs_own_scale(layer: IntegerLayer) -> bool:
    if bits(layer.weight_kind) < 8:
        return True
    return layer.source is not None and not layer.has_eight_bits


def _own_scale(bias: np.ndarray) -> np.ndarray:
    """A power of two, ``BIAS_STEPS`` of which are at least the largest bias."""
    tiny = np.finfo(np.float32).tiny  # a bias of zeros has a scale above 0 too
    magnitudes = np.abs(bias)
    largest = max(magnitudes.max(), tiny)
    exponent = np.ceil(np.log2(largest))
    power = np.exp2(exponent)
    return np.asarray(max(power / BIAS_STEPS, tiny))


def _dequantize_before(
    index: Index,
    node: NodeProto,
    name: str,
    integers: np.ndarray,
    scale: np.ndarray,
    axis: int | None = None,
) -> None:
    """Let a layer read its bias from int32, ``[C_out]``, and the scale of all or, along ``axis``, of each."""
    codes = numpy_helper.from_array(integers.astype(np.int32), f"{name}.int32")
    stored_scale = numpy_helper.from_array(scale.astype(np.float32), f"{name}.scale")
    index.store(codes, stored_scale)
    value = f"{name}.value"
    dequantize = make_node("DequantizeLinear", [codes.name, stored_scale.name], [value], name, axis=axis)
    insert_before(index.graph, node, dequantize)
    node.input[2] = value
