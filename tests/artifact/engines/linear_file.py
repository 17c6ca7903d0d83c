"""A tiny network as a module and as an ONNX file that is made by hand, so that both answer alike."""

from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

SHAPE = (2, 3, 4, 4)


def network() -> nn.Sequential:
    """A convolution, its ReLU and a mean over the pixels: ``[N, 3, 4, 4] -> [N, 5]``."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def write(model: nn.Sequential, path: Path) -> Path:
    """The network as a file whose input and output have names of their own."""
    layer = model[0]
    weights = [
        numpy_helper.from_array(layer.weight.detach().numpy(), "weight"),
        numpy_helper.from_array(layer.bias.detach().numpy(), "bias"),
    ]
    nodes = [
        helper.make_node("Conv", ["picture", "weight", "bias"], ["products"], "first/conv", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["products"], ["positive"], "first/relu"),
        helper.make_node("GlobalAveragePool", ["positive"], ["means"], "pool"),
        helper.make_node("Flatten", ["means"], ["answer"], "flatten", axis=1),
    ]
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["batch", 3, 4, 4])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["batch", 5])
    graph = helper.make_graph(nodes, "tiny", [picture], [answer], weights)
    opset = helper.make_opsetid("", 21)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path
