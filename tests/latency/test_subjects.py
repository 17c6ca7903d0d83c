"""Which engine gets what, and what a foreign ONNX file says of its images."""

import onnx
import pytest
from onnx import TensorProto, helper

from micronet_cli.artifact.engines.onnxruntime import OnnxRuntime
from micronet_cli.artifact.engines.openvino import OpenVino
from micronet_cli.artifact.engines.pytorch import PyTorch
from micronet_cli.latency.subjects import bytes_of, onnx_shape, subjects, weights_bytes
from tests.artifact.engines.linear_file import network, write


def test_every_engine_gets_what_it_opens(tmp_path):
    model = network()
    files = [write(model, tmp_path / "model.onnx"), tmp_path / "model.xml"]
    files[1].write_bytes(b"12")
    (tmp_path / "model.bin").write_bytes(b"345")
    found = subjects("dense", model, files, [PyTorch(), OnnxRuntime(), OpenVino()])
    keys = [("", "pytorch"), ("model.onnx", "onnxruntime"), ("model.onnx", "openvino"), ("model.xml", "openvino")]
    assert [subject.key[1:] for subject in found] == keys
    assert str(found[0]) == "the dense network in pytorch"
    assert found[3].file_bytes == 5


def test_weights_that_lie_beside_a_file_count(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"1")
    (tmp_path / "model.onnx.data").write_bytes(b"234")
    assert bytes_of(path) == 4


def test_weights_of_a_live_network_take_what_pytorch_writes():
    model = network()
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert weights_bytes(model) > 4 * weights


def test_a_file_tells_its_images_and_classes(tmp_path):
    assert onnx_shape(write(network(), tmp_path / "tiny.onnx")) == ((3, 4, 4), 5)


def test_a_file_without_a_size_is_a_mistake(tmp_path):
    path = tmp_path / "any.onnx"
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, "height", "width"])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, None)
    node = helper.make_node("Relu", ["images"], ["answer"])
    onnx.save(helper.make_model(helper.make_graph([node], "any", [images], [answer])), path)
    with pytest.raises(ValueError, match=r"its input has the dimensions \[0, 3, 0, 0\]"):
        onnx_shape(path)


def test_a_damaged_file_is_a_mistake(tmp_path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(ValueError, match="damaged, or not an ONNX file"):
        onnx_shape(path)
