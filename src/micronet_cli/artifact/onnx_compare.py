"""An exported graph beside the network that it was made of, every activation quantiser on its own.

One code on a tie takes all layers behind it along, so that logits alone do not tell a tie from a fault. Here the graph
is cut behind every activation quantiser: it goes on with the integers that the network has there.
"""

import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import GraphProto, NodeProto, TensorProto
from onnx.helper import make_tensor_value_info
from torch import Tensor, nn

from micronet_cli.artifact.compare import BATCH, Codes, Comparison, scale_of_output, watched
from micronet_cli.artifact.engines.onnxruntime import session
from micronet_cli.artifact.onnx import INPUT, OUTPUT
from micronet_cli.artifact.onnx_graph import Index


@dataclass(frozen=True)
class Cut:
    """Where a graph is cut.

    Attributes:
        module: name of the quantiser.
        call: which of its calls, from 0.
        output: what the graph computes there.
        given: what it goes on with, an input of the graph.
    """

    module: str
    call: int
    output: str
    given: str


@torch.no_grad()
def compare_onnx(path: Path, model: nn.Module, images: Tensor, fused: bool = False) -> Comparison:
    """Run both on ``images [N, C, H, W]`` in single precision; the model is left as it is.

    Args:
        path: what ``export_onnx`` wrote.
        model: what it was made of, in evaluation mode.
        images: normalised for the network.
        fused: with onnxruntime's integer kernels, see ``engines.onnxruntime.session``.
    """
    proto = onnx.load(path)
    cuts = cut_behind_quantizers(proto.graph, model)
    comparison = Comparison()
    with tempfile.TemporaryDirectory() as directory:
        cut_file = Path(directory) / "cut.onnx"
        onnx.save_model(proto, cut_file, save_as_external_data=True)
        runtime = session(cut_file, torch.get_num_threads(), fused)
        for part in images.split(BATCH):
            with watched(model, {}) as codes:
                logits = model(part)
            feeds = {INPUT: part.numpy()}
            for cut in cuts:
                feeds[cut.given] = _values(model, codes, cut).numpy()
            outputs = [cut.output for cut in cuts]
            found_logits, *found = runtime.run([OUTPUT, *outputs], feeds)
            changed = _compare_codes(comparison, model, codes, cuts, found, len(part))
            comparison.add_logits(logits, torch.from_numpy(found_logits), changed)
    return comparison


def cut_behind_quantizers(graph: GraphProto, model: nn.Module) -> list[Cut]:
    """Make what activation quantisers hand over outputs of the graph, and what their readers read its inputs."""
    index = Index.of(graph)
    first_names = {module: name for name, module in model.named_modules()}
    calls: defaultdict[str, int] = defaultdict(int)
    cuts = []
    renamed = {}
    for node in graph.node:
        if not _dequantizes_activation(node, index):
            continue
        exported_name, _, _ = node.name.rpartition("/")
        module = first_names[model.get_submodule(exported_name)]  # the exporter takes the last of several names
        output = node.output[0]
        cut = Cut(module, calls[module], output, f"{output}.given")
        calls[module] += 1
        cuts.append(cut)
        renamed[output] = cut.given
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
    for cut in cuts:
        given = make_tensor_value_info(cut.given, TensorProto.FLOAT, None)
        output = make_tensor_value_info(cut.output, TensorProto.FLOAT, None)
        graph.input.append(given)
        graph.output.append(output)
    return cuts


def _dequantizes_activation(node: NodeProto, index: Index) -> bool:
    if node.op_type != "DequantizeLinear":
        return False
    return index.maker(node.input[0], "QuantizeLinear") is not None


def _values(model: nn.Module, codes: Codes, cut: Cut) -> Tensor:
    """What the network's quantiser handed over at a cut."""
    integers = codes[cut.module][cut.call]
    quantizer = model.get_submodule(cut.module)
    return integers / scale_of_output(quantizer, torch.float32)


def _compare_codes(
    comparison: Comparison, model: nn.Module, codes: Codes, cuts: list[Cut], found: list[np.ndarray], images: int
) -> Tensor:
    """Count the integers of one batch; which of its ``images`` differ somewhere, bool ``[images]``."""
    changed = torch.zeros(images, dtype=torch.bool)
    for cut, values in zip(cuts, found, strict=True):
        quantizer = model.get_submodule(cut.module)
        scale = scale_of_output(quantizer, torch.float32)
        theirs = torch.round(torch.from_numpy(values) * scale).int()
        ours = codes[cut.module][cut.call]
        changed |= comparison.add_codes(cut.module, ours, theirs, images)
    return changed
