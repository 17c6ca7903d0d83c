"""OpenVINO's door: a file answers as the network, for images of a given shape and of any."""

import pytest
import torch

from micronet_cli.artifact.engines.openvino import OpenVino
from tests.artifact.engines.linear_file import SHAPE, network, write

pytest.importorskip("openvino", reason="needs the extra openvino")
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
