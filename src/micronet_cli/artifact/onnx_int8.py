"""A network in 8-bit types, for kernels that compute with these alone.

A network with activation quantisers is written as it is: its codes, its ranges, and float between them. Any other range
or any quantiser more would make another network of it. One without them is float, and gets what is fast:
onnxruntime's post-training quantiser, with four things done to the network, the first three found by profiling:

- global means over height and width are pooled in integers (GlobalAveragePool); as ReduceMean they stay float, and the
  conversions around them cost more than squeeze-and-excitation gains;
- the first layers stay float, up to the first convolution with 64 output channels: 64 bytes are one vector, and
  narrower layers on large images are slower in integers than in float;
- weights that training quantised keep their codes where these fit signed 8 bits around 0;
- logits stay float: in integers a code on a tie, which engines round differently, is a large part of a small logit.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.helper import make_node
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn
from torch.nn.utils import parametrize

from micronet_cli.artifact.onnx import INPUT, OPSET, to_proto, with_codes
from micronet_cli.artifact.onnx_activations import widen_activations
from micronet_cli.artifact.onnx_biases import fit_biases, float_biases, hold_biases
from micronet_cli.artifact.onnx_file import is_large, save, write_checked
from micronet_cli.artifact.onnx_graph import Index, integer_layers, remove_unread, replace_node
from micronet_cli.artifact.onnx_metadata import describe_in
from micronet_cli.artifact.onnx_operators import QuantizedActivation, QuantizedWeight, along_channels, quiet
from micronet_cli.artifact.onnx_types import dequantize_slow_weights, pack_codes
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.network import Network

WIDE = 64
INT8_MAX = 127
PRODUCTS = ("Conv", "Gemm", "MatMul")


def export_int8(
    network: Network, path: Path, images: Tensor, reduce_range: bool = True, wide: int = WIDE, batch: int = 8
) -> dict[str, Any]:
    """Write an 8-bit ``network``, atomically; same input and output as ``export_onnx``.

    Args:
        network: float or quantised.
        path: the file.
        images: ``[N, C, H, W]``, normalised for the network; the smallest and largest activations on them are the
            ranges of a network that has none of its own.
        reduce_range: 7-bit weights where training gave none, so that sums of two products never saturate on CPUs with
            AVX2 and without VNNI.
        wide: output channels of the first convolution in integers; 0: all of them.
        batch: calibration images at a time.

    Returns:
        ``bytes`` of the file, number of ``float_layers``, and of ``trained_weights`` whose codes were kept; whether the
        network's own ``trained_ranges`` were.
    """
    model = with_codes(network)
    if any(isinstance(module, QuantizedActivation) for module in model.modules()):
        return _export_trained(network, model, path)
    overrides = plain_weights(model)
    proto = to_proto(model, network.spec.size, OPSET)
    graph = proto.graph
    pool_means(graph)
    left_float = float_nodes(graph, wide)
    biases = float_biases(graph)
    quantised = _quantised(
        proto,
        Batches(images, batch),
        reduce_range=reduce_range,
        nodes_to_exclude=left_float,
        extra_options={"TensorQuantOverrides": overrides, "QDQDisableWeightAdjustForInt32Bias": True},
    )
    keep_logits_float(quantised.graph)
    fit_biases(quantised.graph, biases)
    describe_in(quantised, network)
    written = write_checked(quantised, path, full_check=False)
    layers = {node.name for node in graph.node if node.op_type in PRODUCTS}
    float_layers = layers & set(left_float)
    return {
        "bytes": written,
        "float_layers": len(float_layers),
        "trained_weights": len(overrides),
        "trained_ranges": False,
    }


def _export_trained(network: Network, model: nn.Module, path: Path) -> dict[str, Any]:
    """Write the ``model`` that was made of a network with activation quantisers, code for code."""
    proto = to_proto(model, network.spec.size, OPSET)
    graph = proto.graph
    pack_codes(graph, least_bits=8)
    dequantize_slow_weights(graph)
    widen_activations(graph)
    fit_biases(graph, float_biases(graph))
    hold_biases(graph)
    layers = sum(node.op_type in PRODUCTS for node in graph.node)
    describe_in(proto, network)
    coded = list(integer_layers(Index.of(graph)))
    integer = [layer for layer in coded if layer.has_eight_bits]
    return {
        "bytes": write_checked(proto, path),
        "float_layers": layers - len(integer),
        "trained_weights": len(coded),
        "trained_ranges": True,
    }


def keep_logits_float(graph: onnx.GraphProto) -> None:
    """Take away the quantiser behind the last layer, where there is one."""
    index = Index.of(graph)
    for value in graph.output:
        dequantize = index.maker(value.name, "DequantizeLinear")
        if dequantize is None:
            continue
        quantize = index.maker(dequantize.input[0], "QuantizeLinear")
        if quantize is None:
            continue
        last = index.makers[quantize.input[0]]
        last.output[0] = value.name
        graph.node.remove(quantize)
        graph.node.remove(dequantize)


def _quantised(proto: onnx.ModelProto, images: CalibrationDataReader, **options: Any) -> onnx.ModelProto:
    """8-bit integers, by onnxruntime's quantiser, which reads and writes files."""
    with tempfile.TemporaryDirectory() as directory, quiet():
        float_path = Path(directory) / "float.onnx"
        int8_path = Path(directory) / "int8.onnx"
        large = is_large(proto)
        save(proto, float_path)
        quantize_static(
            float_path,
            int8_path,
            images,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            use_external_data_format=large,
            **options,
        )
        return onnx.load(int8_path)


def plain_weights(model: nn.Module) -> dict[str, list[dict[str, Any]]]:
    """Undo codes and activation quantisers; initializer's name -> the scale of each channel, where codes fit int8."""
    for name, module in list(model.named_modules()):
        if isinstance(module, QuantizedActivation):
            model.set_submodule(name, nn.Identity())
    overrides: dict[str, list[dict[str, Any]]] = {}
    for name, layer in compressible_layers(model).items():
        if not parametrize.is_parametrized(layer, "weight"):
            continue
        chain = layer.parametrizations["weight"]
        code = chain[0]
        if not isinstance(code, QuantizedWeight):
            continue
        if _fits_int8(code):
            overrides[f"{name}.parametrizations.weight.original"] = _channel_scales(code)
        with torch.no_grad():
            chain.original.copy_(layer.weight)
        chain[0] = nn.Identity()
    return overrides


def _fits_int8(code: QuantizedWeight) -> bool:
    """Whether the codes around their zero points fit signed 8 bits."""
    zero_point = along_channels(code.zero_point, code.codes.dim())
    integers = code.codes - zero_point
    largest = int(integers.abs().max())
    return largest <= INT8_MAX


def _channel_scales(code: QuantizedWeight) -> list[dict[str, Any]]:
    """The scale of each output channel, as onnxruntime's quantiser takes it."""
    scales = []
    for scale in code.scale.tolist():
        channel = {
            "axis": 0,
            "quant_type": QuantType.QInt8,
            "scale": np.float32(scale),
            "zero_point": np.int8(0),
        }
        scales.append(channel)
    return scales


def pool_means(graph: onnx.GraphProto) -> None:
    """Every mean over height and width as GlobalAveragePool, whose output has these at size 1."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = node.attribute[0].t
    for node in list(graph.node):
        if node.op_type != "ReduceMean" or len(node.input) < 2:
            continue
        axes_tensor = constants.get(node.input[1])
        if axes_tensor is None:
            continue
        axes = sorted(numpy_helper.to_array(axes_tensor).tolist())
        if axes in ([2, 3], [-2, -1]):
            replace_node(graph, node, _pooling(node))
    remove_unread(graph)


def _pooling(mean: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes that make the output of a mean over height and width."""
    x = mean.input[0]
    output = mean.output[0]
    integers = {attribute.name: attribute.i for attribute in mean.attribute}
    keeps_dims = integers.get("keepdims", 1)
    pooled = output if keeps_dims else f"{output}.pooled"
    pool = make_node("GlobalAveragePool", [x], [pooled], f"{mean.name}.pool")
    if keeps_dims:
        return [pool]
    flatten = make_node("Flatten", [pooled], [output], f"{mean.name}.flatten", axis=1)
    return [pool, flatten]


def float_nodes(graph: onnx.GraphProto, wide: int) -> list[str]:
    """Names of the nodes before the first convolution with ``wide`` output channels; none where there is no such."""
    channels = {}
    for tensor in graph.initializer:
        if len(tensor.dims) == 4:
            channels[tensor.name] = tensor.dims[0]
    before: list[str] = []
    for node in graph.node:
        if node.op_type == "Conv":
            weight = node.input[1]
            if channels.get(weight, 0) >= wide:
                return before
        before.append(node.name)
    return []


class Batches(CalibrationDataReader):
    """Images for the calibration, ``[N, C, H, W]``, at most ``batch`` at a time."""

    def __init__(self, images: Tensor, batch: int) -> None:
        self._parts: Iterator[Tensor] = iter(images.split(batch))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, None after the last."""
        part = next(self._parts, None)
        if part is None:
            return None
        return {INPUT: part.numpy()}
