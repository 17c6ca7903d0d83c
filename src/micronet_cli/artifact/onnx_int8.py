"""A network for onnxruntime's integer kernels: 8-bit weights and activations wherever they pay.

onnxruntime's post-training quantiser, with three things done to the network first, each found by profiling:

- global means over height and width are pooled in integers (GlobalAveragePool); as ReduceMean they stay float, and the
  conversions around them cost more than squeeze-and-excitation gains;
- the first layers stay float, up to the first convolution with 64 output channels: 64 bytes are one vector, and
  narrower layers on large images are slower in integers than in float;
- weights that training quantised keep their codes where these fit signed 8 bits around 0.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn

from micronet_cli.artifact.onnx import INPUT, OPSET, to_proto, with_codes
from micronet_cli.artifact.onnx_operators import QuantizedActivation, QuantizedWeight, quiet
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.network import Network
from micronet_cli.runs.directory import write_bytes

WIDE = 64


def export_int8(
    network: Network, path: Path, images: Tensor, reduce_range: bool = True, wide: int = WIDE, batch: int = 8
) -> dict[str, Any]:
    """Write an 8-bit ``network``, atomically; same input and output as ``export_onnx``.

    Args:
        network: float or quantised.
        path: the file.
        images: ``[N, C, H, W]``, as the network wants them; their smallest and largest activations are the ranges.
        reduce_range: 7-bit weights where training gave none, so that sums of two products never saturate on CPUs with
            AVX2 and without VNNI.
        wide: output channels of the first convolution in integers; 0: all of them.
        batch: calibration images at a time.

    Returns:
        ``bytes`` of the file, number of ``float_layers``, and of ``trained_weights`` whose codes were kept.
    """
    model = with_codes(network)
    overrides = plain_weights(model)
    proto = to_proto(model, network.spec.size, OPSET)
    pool_means(proto.graph)
    left = float_nodes(proto.graph, wide)
    with tempfile.TemporaryDirectory() as directory, quiet():
        plain, quantised = Path(directory) / "float.onnx", Path(directory) / "int8.onnx"
        onnx.save(proto, plain)
        quantize_static(
            plain, quantised, Batches(images, batch), quant_format=QuantFormat.QDQ, per_channel=True,
            reduce_range=reduce_range, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            nodes_to_exclude=left,
            extra_options={"TensorQuantOverrides": overrides, "QDQDisableWeightAdjustForInt32Bias": True},
        )  # fmt: skip
        content = quantised.read_bytes()
    onnx.checker.check_model(onnx.load_model_from_string(content))
    write_bytes(path, content)
    layers = {node.name for node in proto.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")}
    return {"bytes": len(content), "float_layers": len(layers & set(left)), "trained_weights": len(overrides)}


def plain_weights(model: nn.Module) -> dict[str, list[dict[str, Any]]]:
    """Undo codes and activation quantisers; initializer's name -> the scale of each channel, where codes fit int8."""
    for name, module in list(model.named_modules()):
        if isinstance(module, QuantizedActivation):
            model.set_submodule(name, nn.Identity())
    overrides = {}
    for name, layer in compressible_layers(model).items():
        chain = getattr(layer, "parametrizations", {"weight": [None]})["weight"]
        if not isinstance(code := chain[0], QuantizedWeight):
            continue
        integers = code.codes - code.zero_point.view(-1, *(1,) * (code.codes.dim() - 1))
        if int(integers.abs().max()) <= 127:
            overrides[f"{name}.parametrizations.weight.original"] = [
                {"axis": 0, "quant_type": QuantType.QInt8, "scale": np.float32(scale), "zero_point": np.int8(0)}
                for scale in code.scale.tolist()
            ]
        with torch.no_grad():
            chain.original.copy_(layer.weight)
        chain[0] = nn.Identity()
    return overrides


def pool_means(graph: onnx.GraphProto) -> None:
    """Every mean over height and width as GlobalAveragePool, whose output has these at size 1."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    for node in [node for node in graph.node if node.op_type == "ReduceMean" and len(node.input) > 1]:
        if node.input[1] not in constants:
            continue
        axes = sorted(numpy_helper.to_array(constants[node.input[1]]).tolist())
        keep = {attribute.name: attribute.i for attribute in node.attribute}.get("keepdims", 1)
        if axes not in ([2, 3], [-2, -1]):
            continue
        pooled = node.output[0] if keep else f"{node.output[0]}.pooled"
        parts = [onnx.helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], f"{node.name}.pool")]
        if not keep:
            parts.append(onnx.helper.make_node("Flatten", [pooled], list(node.output), f"{node.name}.flatten", axis=1))
        at = list(graph.node).index(node)
        graph.node.remove(node)
        for part in reversed(parts):
            graph.node.insert(at, part)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def float_nodes(graph: onnx.GraphProto, wide: int) -> list[str]:
    """Names of the nodes before the first convolution with ``wide`` output channels; none where there is no such."""
    channels = {tensor.name: tensor.dims[0] for tensor in graph.initializer if len(tensor.dims) == 4}
    for at, node in enumerate(graph.node):
        if node.op_type == "Conv" and channels.get(node.input[1], 0) >= wide:
            return [before.name for before in graph.node[:at]]
    return []


class Batches(CalibrationDataReader):
    """Images for the calibration, some at a time."""

    def __init__(self, images: Tensor, batch: int) -> None:
        self.parts: Iterator[Tensor] = iter(images.split(batch))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, None after the last."""
        part = next(self.parts, None)
        return None if part is None else {INPUT: part.numpy()}
