"""A graph is one file; more than one file holds lies beside it and is read from there."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from micronet_cli.artifact import onnx_file
from micronet_cli.artifact.onnx_file import is_large, save, write_checked
from micronet_cli.errors import UserError

WEIGHT = np.arange(4096, dtype=np.float32).reshape(1024, 4)


@pytest.fixture
def proto():
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1024])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    node = helper.make_node("MatMul", ["x", "weight"], ["y"])
    graph = helper.make_graph([node], "product", [x], [y], [numpy_helper.from_array(WEIGHT, "weight")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def answer(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.ones((1, 1024), np.float32)})[0]


def test_graph_is_one_file(proto, tmp_path):
    path = tmp_path / "model.onnx"
    assert write_checked(proto, path) == path.stat().st_size
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    np.testing.assert_allclose(answer(path), [WEIGHT.sum(0)])


def test_tensors_beyond_the_limit_lie_beside_the_file(proto, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "MOST_BYTES", WEIGHT.nbytes - 1)
    path = tmp_path / "model.onnx"
    written = write_checked(proto, path)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["model.onnx", "model.onnx.data"]
    assert written == sum(file.stat().st_size for file in files) > WEIGHT.nbytes
    assert files[0].stat().st_size < 1000
    np.testing.assert_allclose(answer(path), [WEIGHT.sum(0)])


def test_smaller_graph_takes_the_place_of_a_large_one(proto, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    with monkeypatch.context() as lowered:
        lowered.setattr(onnx_file, "MOST_BYTES", 0)
        save(proto, path)
    write_checked(onnx.load(path), path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    np.testing.assert_allclose(answer(path), [WEIGHT.sum(0)])


def test_limit_itself_is_one_file(proto, monkeypatch):
    monkeypatch.setattr(onnx_file, "MOST_BYTES", WEIGHT.nbytes)
    assert not is_large(proto)
    monkeypatch.setattr(onnx_file, "MOST_BYTES", WEIGHT.nbytes - 1)
    assert is_large(proto)


def test_graph_that_reads_what_nothing_makes_is_refused_in_one_line(proto, tmp_path):
    proto.graph.node[0].input[1] = "nothing"
    with pytest.raises(UserError, match=r"^ONNX: torch's exporter wrote a graph that is not valid \(.*nothing.*\)$"):
        write_checked(proto, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
