"""A network as ONNX: integer codes and QuantizeLinear / DequantizeLinear pairs (opset 21 or later).

BatchNorm is folded without touching a code: its gain goes into the scale of each output channel, its shift into the
bias (Jacob et al., arXiv 1712.05877, section 3.2). Where a gain is negative the codes are mirrored, so that scales stay
positive.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from micronet_cli.artifact.engines.onnxruntime import session
from micronet_cli.artifact.onnx_activations import split_bounds, widen_inputs
from micronet_cli.artifact.onnx_biases import fit_biases, float_biases, hold_biases
from micronet_cli.artifact.onnx_file import write_checked
from micronet_cli.artifact.onnx_graph import name_nodes, strip
from micronet_cli.artifact.onnx_metadata import describe_in
from micronet_cli.artifact.onnx_operators import (
    TRANSLATIONS,
    QuantizedActivation,
    QuantizedWeight,
    along_channels,
    quiet,
)
from micronet_cli.artifact.onnx_types import pack_codes
from micronet_cli.errors import UserError
from micronet_cli.functional.quantization import quant_max
from micronet_cli.layers.attention import unfuse_attention
from micronet_cli.layers.batch_norm import gain_and_shift, remove_batch_norm
from micronet_cli.layers.effective_weight import effective_weight, incoming_weight
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.layers.held_codes import in_precision
from micronet_cli.layers.plain_weights import give_plain_weights
from micronet_cli.network import Network
from micronet_cli.trace.batch_norm import batch_norm_pairs

INPUT, OUTPUT = "images", "logits"
OPSET = 21  # the first with 4-bit QuantizeLinear


@torch.no_grad()
def with_codes(network: Network) -> nn.Module:
    """A copy for export: weights as codes, ranges as constants, BatchNorm folded where it can be."""
    model = in_precision(network.model, torch.float32).cpu()
    unfuse_attention(model)
    pairs = batch_norm_pairs(model, network.spec.size)
    coded: dict[str, QuantizedWeight] = {}
    for name, layer in give_plain_weights(model).items():
        code = _codes_of(layer)
        if code is not None:
            coded[name] = code
            register_parametrization(model.get_submodule(name), "weight", code, unsafe=True)
    for norm_name, layer_name in pairs.items():
        _fold(model.get_submodule(norm_name), model.get_submodule(layer_name), coded.get(layer_name))
        remove_batch_norm(model, norm_name)
    for code in coded.values():
        code.rescale_zeros()
    for name, module in list(model.named_modules()):
        if isinstance(module, ActivationFakeQuantize):
            model.set_submodule(name, QuantizedActivation(module))
    return model


def _fold(norm: nn.Module, layer: nn.Module, code: QuantizedWeight | None) -> None:
    """Put a BatchNorm's gain into the layer's scales or weight, and its shift into the bias."""
    gain, shift = gain_and_shift(norm)
    if code is not None:
        code.multiply(gain)
    else:
        layer.weight.mul_(along_channels(gain, layer.weight.dim()))
    bias = shift
    if layer.bias is not None:
        bias = layer.bias.double() * gain + shift
    layer.bias = nn.Parameter(bias.float())


def _codes_of(layer: nn.Module) -> QuantizedWeight | None:
    """The layer's quantised weight; None where it is in float."""
    effective = effective_weight(layer)
    if effective is None or effective.fake_quantize is None:
        return None
    incoming = incoming_weight(layer)
    scale, zero_point = effective.qparams(incoming)
    return QuantizedWeight(layer.weight, scale, zero_point, quant_max(effective.fake_quantize.bits))


def to_proto(model: nn.Module, input_shape: Sequence[int], opset: int) -> onnx.ModelProto:
    """What torch's exporter makes of a model of ``with_codes``, for any number of images.

    Raises:
        UserError: the exporter cannot follow the network.
    """
    example = torch.zeros(2, *input_shape)
    try:
        with quiet():
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                external_data=False,
                opset_version=opset,
                verbose=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                custom_translation_table=TRANSLATIONS,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise UserError(f"ONNX: torch's exporter cannot follow this network ({reason})") from None
    proto: onnx.ModelProto = program.model_proto
    name_nodes(proto.graph)
    strip(proto.graph)
    return proto


def export_onnx(network: Network, path: Path, opset: int = OPSET) -> dict[str, Any]:
    """Write ``network`` as an ONNX file, atomically; input ``images [N, C, H, W]``, output ``logits [N, classes]``.

    Weights are integer codes of the narrowest type that holds them (INT4 to UINT16) and a DequantizeLinear with a scale
    for each output channel; every activation quantiser is a QuantizeLinear / DequantizeLinear pair.

    Args:
        network: the network as it was trained.
        path: the file; where its tensors have 2 GB or more they lie beside it, in ``PATH.data``.
        opset: at least 21.

    Returns:
        ``bytes`` written, ``opset``, number of ``quantized_weights`` and ``quantized_activations``.

    Raises:
        ValueError: an older opset.
        UserError: the exporter cannot follow the network.
    """
    if opset < OPSET:
        raise ValueError(f"opset={opset}: must be at least {OPSET}, where 4-bit types begin")
    model = with_codes(network)
    proto = to_proto(model, network.spec.size, opset)
    pack_codes(proto.graph)
    widen_inputs(proto.graph)
    fit_biases(proto.graph, float_biases(proto.graph))
    hold_biases(proto.graph)
    split_bounds(proto.graph)
    describe_in(proto, network)
    written = write_checked(proto, path)
    modules = list(model.modules())
    return {
        "bytes": written,
        "opset": opset,
        "quantized_weights": sum(isinstance(module, QuantizedWeight) for module in modules),
        "quantized_activations": sum(isinstance(module, QuantizedActivation) for module in modules),
    }


@torch.no_grad()
def check_onnx(path: Path, model: nn.Module, images: Tensor, fused: bool = False, batch: int = 64) -> dict[str, float]:
    """How far the file's logits are from the model's.

    Args:
        path: what ``export_onnx`` wrote.
        model: what it was made of.
        images: ``[N, C, H, W]``, normalised for the network.
        fused: with onnxruntime's integer kernels, which round and may saturate on their own (int8 products on CPUs
            with AVX2 and without VNNI); else the graph as it stands.
        batch: images at a time.

    Returns:
        ``max_abs_deviation`` of the logits, ``max_abs_logit`` beside it, and ``equal_predictions``, a share in [0, 1].
    """
    runtime = session(path, torch.get_num_threads(), fused)
    model = model.eval()
    found_parts = []
    expected_parts = []
    for part in images.split(batch):
        (logits,) = runtime.run([OUTPUT], {INPUT: part.numpy()})
        found_parts.append(logits)
        expected_parts.append(model(part).numpy())
    found = np.concatenate(found_parts)
    expected = np.concatenate(expected_parts)
    equal = found.argmax(1) == expected.argmax(1)
    return {
        "max_abs_deviation": float(np.abs(found - expected).max()),
        "max_abs_logit": float(np.abs(expected).max()),
        "equal_predictions": float(equal.mean()),
    }
