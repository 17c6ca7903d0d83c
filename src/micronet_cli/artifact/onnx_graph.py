"""An exported graph by name: what it stores, which node makes what, and which layers have integer weights."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper

NAME_SCOPES = "pkg.torch.onnx.name_scopes"  # torch's exporter lists the modules around a node under this key
EIGHT_BITS = (TensorProto.UINT8, TensorProto.INT8)
LAYERS = ("Conv", "Gemm", "MatMul")
# What lies between a quantised value and its reader without a scale of its own.
SAME_SCALE = ("Flatten", "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def replace_node(graph: GraphProto, node: NodeProto, parts: Sequence[NodeProto]) -> None:
    """Put ``parts``, in their order, in a node's place."""
    place = list(graph.node).index(node)
    graph.node.remove(node)
    for part in reversed(parts):
        graph.node.insert(place, part)


@dataclass(frozen=True)
class Index:
    """A graph by name.

    Attributes:
        graph: itself.
        stored: initializers.
        constants: these, and the values of Constant nodes.
        makers: a node's output -> the node.
    """

    graph: GraphProto
    stored: dict[str, TensorProto]
    constants: dict[str, TensorProto]
    makers: dict[str, NodeProto]

    @classmethod
    def of(cls, graph: GraphProto) -> "Index":
        """Everything in the graph."""
        stored = {tensor.name: tensor for tensor in graph.initializer}
        constants = dict(stored)
        makers: dict[str, NodeProto] = {}
        for node in graph.node:
            for output in node.output:
                makers[output] = node
            if node.op_type == "Constant":
                constants[node.output[0]] = node.attribute[0].t
        return cls(graph, stored, constants, makers)

    def maker(self, name: str, kind: str) -> NodeProto | None:
        """The node of this kind that makes a value; None where another kind does."""
        node = self.makers.get(name)
        if node is None or node.op_type != kind:
            return None
        return node

    def store(self, *tensors: TensorProto) -> None:
        """Add initializers to the graph."""
        self.graph.initializer.extend(tensors)
        for tensor in tensors:
            self.stored[tensor.name] = tensor
            self.constants[tensor.name] = tensor

    def values(self, name: str) -> np.ndarray:
        """The values of a constant."""
        return numpy_helper.to_array(self.constants[name])


@dataclass(frozen=True)
class IntegerLayer:
    """A layer with a weight of codes.

    Attributes:
        node: a convolution or linear layer.
        weight: the DequantizeLinear that makes its weight.
        weight_kind: type of the codes.
        source: the DequantizeLinear that its input comes from; None: a float input.
        source_kind: type of the input's codes.
    """

    node: NodeProto
    weight: NodeProto
    weight_kind: int
    source: NodeProto | None = None
    source_kind: int | None = None

    @property
    def bias(self) -> str | None:
        """Name of the bias."""
        if len(self.node.input) < 3:
            return None
        return self.node.input[2]

    @property
    def has_eight_bits(self) -> bool:
        """Whether weight and input have 8 bits, which is what a runtime's integer kernels take."""
        return self.weight_kind in EIGHT_BITS and self.source_kind in EIGHT_BITS


def integer_layers(index: Index) -> Iterator[IntegerLayer]:
    """Layers with a weight of codes, in the graph's order; nodes may be added meanwhile."""
    for node in list(index.graph.node):
        if node.op_type not in LAYERS:
            continue
        weight = _source(node.input[1], index)
        if weight is None or weight.input[0] not in index.stored:
            continue
        weight_kind = index.stored[weight.input[0]].data_type
        source = _source(node.input[0], index)
        if source is None:
            yield IntegerLayer(node, weight, weight_kind)
            continue
        zero_point = index.constants[source.input[2]]
        yield IntegerLayer(node, weight, weight_kind, source, zero_point.data_type)


def _source(name: str, index: Index) -> NodeProto | None:
    """The DequantizeLinear whose values these are, maybe in other places."""
    node = index.makers.get(name)
    while node is not None and node.op_type in SAME_SCALE:
        node = index.makers.get(node.input[0])
    if node is None or node.op_type != "DequantizeLinear":
        return None
    return node


def insert_before(graph: GraphProto, node: NodeProto, added: NodeProto) -> None:
    """Put a node in front of another."""
    place = list(graph.node).index(node)
    graph.node.insert(place, added)


def _inputs(graph: GraphProto) -> set[str]:
    """Names of all tensors that a node reads."""
    return {name for node in graph.node for name in node.input}


def remove_unread(graph: GraphProto) -> None:
    """Take away the stored tensors that no node reads, and the nodes that dequantise them for nobody."""
    outputs = {value.name for value in graph.output}
    read = _inputs(graph) | outputs
    for node in list(graph.node):
        if node.op_type == "DequantizeLinear" and node.output[0] not in read:
            graph.node.remove(node)
    read = _inputs(graph)
    for tensor in list(graph.initializer):
        if tensor.name not in read:
            graph.initializer.remove(tensor)


def name_nodes(graph: GraphProto) -> None:
    """Begin the name of every node with the module that it comes from, as ``layer1.0.conv1/node_conv2d``."""
    for node in graph.node:
        module = _module_of(node)
        node.name = f"{module}/{node.name}"


def _module_of(node: NodeProto) -> str:
    """The module in whose forward torch's exporter met a node's operation; empty for the network's own."""
    for entry in node.metadata_props:
        if entry.key == NAME_SCOPES:
            scopes = ast.literal_eval(entry.value)
            return scopes[-2]  # the last is the operation
    return ""


def strip(graph: GraphProto) -> None:
    """Take away stack traces, and the types that tensors had before."""
    del graph.value_info[:]
    for value in [*graph.node, *graph.initializer]:
        del value.metadata_props[:]
