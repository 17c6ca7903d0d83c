"""A graph by name, and edits that keep its order."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from micronet_cli.artifact.onnx_graph import remove_unread, replace_node, strip


def identity(source, output):
    return helper.make_node("Identity", [source], [output])


def test_parts_take_the_place_of_their_node_in_order():
    graph = helper.make_graph([identity("a", "b"), identity("b", "c"), identity("c", "d")], "chain", [], [])
    replace_node(graph, graph.node[1], [identity("b", "x"), identity("x", "c")])
    assert [node.output[0] for node in graph.node] == ["b", "x", "c", "d"]


def test_tensors_that_no_node_reads_are_taken_away():
    tensors = [numpy_helper.from_array(np.zeros(1, np.float32), name) for name in ("read", "unread")]
    graph = helper.make_graph([identity("read", "y")], "reader", [], [], tensors)
    remove_unread(graph)
    assert [tensor.name for tensor in graph.initializer] == ["read"]


def test_strip_takes_traces_of_where_the_graph_was_made():
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), "w")
    graph = helper.make_graph([identity("w", "y")], "traced", [], [], [tensor])
    graph.value_info.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]))
    graph.node[0].metadata_props.add(key="stack", value="/home/a/train.py")
    graph.initializer[0].metadata_props.add(key="stack", value="/home/a/train.py")
    strip(graph)
    assert b"train.py" not in graph.SerializeToString()
    assert not graph.value_info
