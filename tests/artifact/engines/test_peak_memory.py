"""The peak of a process of its own: of a file, of a live network, and of one that no other process can have."""

import pytest

from micronet_cli.artifact.engines.onnxruntime import OnnxRuntime
from micronet_cli.artifact.engines.peak_memory import STATUS, peak_memory_bytes
from micronet_cli.artifact.engines.pytorch import PyTorch
from tests.artifact.engines.linear_file import SHAPE, network, write

pytestmark = pytest.mark.skipif(not STATUS.is_file(), reason="needs Linux, whose /proc tells a process's peak")
MEBI = 2**20


def test_a_file_needs_less_than_pytorch_takes(tmp_path):
    path = write(network(), tmp_path / "tiny.onnx")
    peak = peak_memory_bytes(OnnxRuntime(), path, 1, SHAPE)
    assert 20 * MEBI < peak < 200 * MEBI


def test_more_images_need_more(tmp_path):
    path = write(network(), tmp_path / "tiny.onnx")
    few = peak_memory_bytes(OnnxRuntime(), path, 1, SHAPE)
    many = peak_memory_bytes(OnnxRuntime(), path, 1, (2**17, *SHAPE[1:]))
    assert many - few > 2**17 * 3 * 16 * 4


@pytest.mark.slow
def test_a_live_network_is_handed_over():
    assert peak_memory_bytes(PyTorch(), network(), 1, SHAPE) > 100 * MEBI


def test_a_network_that_cannot_be_handed_over_has_no_peak():
    model = network()
    model.register_forward_hook(lambda module, inputs, output: output)
    assert peak_memory_bytes(PyTorch(), model, 1, SHAPE) is None


def test_a_process_that_fails_has_no_peak(tmp_path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"no graph")
    assert peak_memory_bytes(OnnxRuntime(), path, 1, SHAPE) is None
