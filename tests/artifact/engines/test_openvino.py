"""OpenVINO's door: a file answers as the network, for images of a given shape and of any; nobody is told."""

import os
import socket
import subprocess
import sys

import pytest
import torch

from micronet_cli.artifact.engines.openvino import OpenVino
from tests.artifact.engines.linear_file import SHAPE, network, write

# Not importorskip: it imports, and not through the door.
pytestmark = pytest.mark.skipif(not OpenVino().installed(), reason="needs the extra openvino")
SILENT = ("CI", "TF_BUILD", "JENKINS_URL")  # where its telemetry is off
IMAGES = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [None, SHAPE], ids=["any shape", "one shape"])
def test_a_file_answers_as_the_network(tmp_path, shape):
    model = network()
    opened = OpenVino().open(write(model, tmp_path / "tiny.onnx"), 1, shape)
    with torch.no_grad():
        expected = model(IMAGES).numpy()
    assert opened.run(IMAGES.numpy()) == pytest.approx(expected, abs=1e-5)


def test_answers_stay_what_they_were_when_the_next_images_come(tmp_path):
    opened = OpenVino().open(write(network(), tmp_path / "tiny.onnx"), 1)
    first = opened.run(IMAGES.numpy())
    before = first.copy()
    opened.run(-IMAGES.numpy())
    assert (first == before).all()


def test_profile_names_what_takes_time(tmp_path):
    path = write(network(), tmp_path / "tiny.onnx")
    found = OpenVino().profile(path, 1, IMAGES.numpy(), runs=3)
    (product,) = [operation for operation in found if operation.kind == "Convolution"]
    assert product.name.startswith("first/")
    assert product.milliseconds > 0


def test_the_import_tells_nobody_and_leaves_no_thread(tmp_path):
    path = write(network(), tmp_path / "tiny.onnx")
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys, threading\n"
        "from pathlib import Path\n"
        "from micronet_cli.artifact.engines.openvino import OpenVino\n"
        "OpenVino().open(Path(sys.argv[1]), 1)\n"
        "print([thread.name for thread in threading.enumerate()])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in SILENT}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
        environment |= {"HOME": str(home), "https_proxy": proxy, "HTTPS_PROXY": proxy, "no_proxy": "", "NO_PROXY": ""}
        command = [sys.executable, "-c", code, str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert done.stdout == "['MainThread']\n"
    assert list(home.iterdir()) == []
