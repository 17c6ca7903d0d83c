"""An exported graph, cut at every activation quantiser: it goes on with integers that it is given.

One code on a tie takes all layers behind it along, so that logits alone do not tell a tie from a fault.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from onnx import GraphProto, NodeProto, TensorProto
from onnx.helper import make_tensor_value_info, tensor_dtype_to_np_dtype
from torch import Tensor, nn

from micronet_cli.artifact.compare import Codes, scale_of_output
from micronet_cli.artifact.onnx_graph import Index
from micronet_cli.artifact.onnx_types import FOUR_BITS


@dataclass(frozen=True)
class Cut:
    """Where a graph is cut.

    Attributes:
        module: name of the quantiser.
        call: which of its calls, from 0.
        output: what the graph computes there.
        given: what it goes on with, an input of the graph.
        kind: type of both.
        zero_point: of integers, which are cut between QuantizeLinear and DequantizeLinear so that the layers before and
            behind stay in integers; None: floats behind both, since runtimes take no 4-bit inputs.
        steps: codes a unit.
    """

    module: str
    call: int
    output: str
    given: str
    kind: int
    zero_point: int | None
    steps: Tensor | int

    def codes_in(self, codes: Codes) -> Tensor:
        """The network's integers at this cut."""
        return codes[self.module][self.call]

    def fed(self, codes: Codes) -> np.ndarray:
        """What the graph is given for these integers."""
        integers = self.codes_in(codes)
        if self.zero_point is None:
            return (integers / self.steps).numpy()
        return (integers + self.zero_point).numpy().astype(tensor_dtype_to_np_dtype(self.kind))

    def codes_of(self, found: np.ndarray) -> Tensor:
        """The integers that a graph has computed."""
        if self.zero_point is None:
            return torch.round(torch.from_numpy(found) * self.steps).int()
        return torch.from_numpy(found.astype(np.int32)) - self.zero_point


def cut_at_quantizers(graph: GraphProto, model: nn.Module, codes: Codes) -> list[Cut]:
    """Make what activation quantisers compute outputs of the graph, and what their readers read its inputs.

    Args:
        graph: as ``export_onnx`` writes it.
        model: what it was made of.
        codes: the model's integers on some images, for their shapes.
    """
    index = Index.of(graph)
    first_names = {module: name for name, module in model.named_modules()}
    calls: defaultdict[str, int] = defaultdict(int)
    cuts = []
    for node in graph.node:
        if not _dequantizes_activation(node, index):
            continue
        exported_name, _, _ = node.name.rpartition("/")
        quantizer = model.get_submodule(exported_name)
        module = first_names[quantizer]  # the exporter takes the last of several names
        cuts.append(_cut(node, index, module, calls[module], scale_of_output(quantizer, torch.float32)))
        calls[module] += 1
    given = {cut.output: cut.given for cut in cuts}
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = given.get(name, name)
    for cut in cuts:
        _, *sizes = cut.codes_in(codes).shape
        shape = [f"{cut.given}.length", *sizes]
        graph.input.append(make_tensor_value_info(cut.given, cut.kind, shape))
        graph.output.append(make_tensor_value_info(cut.output, cut.kind, None))
    return cuts


def _cut(node: NodeProto, index: Index, module: str, call: int, steps: Tensor | int) -> Cut:
    """The cut at a pair of QuantizeLinear and DequantizeLinear, by the latter."""
    codes_name, _, zero_point_name = node.input
    kind = index.constants[zero_point_name].data_type
    zero_point = int(index.values(zero_point_name))
    if kind in FOUR_BITS:
        output = node.output[0]
        return Cut(module, call, output, f"{output}.given", TensorProto.FLOAT, None, steps)
    return Cut(module, call, codes_name, f"{codes_name}.given", kind, zero_point, steps)


def _dequantizes_activation(node: NodeProto, index: Index) -> bool:
    if node.op_type != "DequantizeLinear":
        return False
    return index.maker(node.input[0], "QuantizeLinear") is not None
