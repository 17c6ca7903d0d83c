"""onnxruntime's door: a file of any names answers as the network, and its profile names the layers."""

import subprocess
import sys

import pytest
import torch

from micronet_cli.artifact.engines.onnxruntime import OnnxRuntime
from tests.artifact.engines.linear_file import SHAPE, network, write

IMAGES = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def test_a_file_of_any_names_answers_as_the_network(tmp_path):
    model = network()
    opened = OnnxRuntime().open(write(model, tmp_path / "tiny.onnx"), threads=1)
    with torch.no_grad():
        expected = model(IMAGES).numpy()
    assert opened.run(IMAGES.numpy()) == pytest.approx(expected, abs=1e-5)


def test_profile_has_each_operation_once_under_its_layers_name(tmp_path):
    path = write(network(), tmp_path / "tiny.onnx")
    found = OnnxRuntime().profile(path, 1, IMAGES.numpy(), runs=3)
    names = [operation.name for operation in found]
    assert len(names) == len(set(names))
    (product,) = [operation for operation in found if "Conv" in operation.kind]
    assert product.name == "first/conv"
    assert product.milliseconds > 0


def test_the_door_needs_no_torch():
    """A process that runs a file alone must not pay for torch's memory."""
    program = (
        "import sys; from micronet_cli.artifact.engines.onnxruntime import OnnxRuntime; "
        "from micronet_cli.artifact.engines.openvino import OpenVino; "
        "OnnxRuntime().installed(), OpenVino().installed(); "
        "print(sorted({'torch', 'onnxruntime', 'openvino'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
