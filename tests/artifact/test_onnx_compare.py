"""An exported graph beside its network: a fault is named where it is, and stays there."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from micronet_cli.artifact.onnx import check_onnx, export_onnx
from micronet_cli.artifact.onnx_compare import compare_onnx
from micronet_cli.compression.quantization.quantizer import Quantizer
from micronet_cli.models.model import InputSpec
from micronet_cli.network import Network
from tests.artifact.exportable import ALL, SPEC, settle
from tests.artifact.networks import CLASSES, transformer

IMAGES = torch.randn(4, *SPEC.size, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def quantised(tmp_path):
    """A network of three quantised layers, one of which runs twice, and its file."""
    torch.manual_seed(0)
    twice = nn.Conv2d(3, 3, 1)
    model = nn.Sequential(nn.Conv2d(3, 3, 1), twice, nn.ReLU(), twice, nn.Flatten(), nn.Linear(3 * 12 * 12, 5))
    Quantizer(ALL, 4, 4).attach(model)
    network = Network(settle(model, IMAGES), {}, list("abcde"), SPEC)
    path = tmp_path / "model.onnx"
    export_onnx(network, path)
    return network.model, path


def test_every_call_of_every_quantiser_is_compared(quantised):
    model, path = quantised
    found = compare_onnx(path, model, IMAGES)
    assert found.codes == 4 * IMAGES.numel()
    assert (found.images, found.same_predictions, found.differing_codes) == (4, 4, 0)
    assert found.logit_error < 1e-5


def test_a_fault_in_one_layer_is_seen_behind_it_alone(quantised):
    model, path = quantised
    proto = onnx.load(path)
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    bias = tensors["0.bias.int32"]
    one = 1 / numpy_helper.to_array(tensors["0.bias.scale"])
    shifted = numpy_helper.to_array(bias) + one.astype(np.int32)
    bias.CopyFrom(numpy_helper.from_array(shifted, bias.name))
    onnx.save(proto, path)
    found = compare_onnx(path, model, IMAGES)
    assert list(found.differing_by_module) == ["1.input_fake_quantize"]
    assert found.logit_error < 1e-5
    end_to_end = check_onnx(path, model, IMAGES)
    assert end_to_end["max_abs_deviation"] > 0.01


def test_the_file_is_left_as_it_was(quantised):
    model, path = quantised
    before = path.read_bytes()
    compare_onnx(path, model, IMAGES)
    assert path.read_bytes() == before


@pytest.mark.parametrize("bits", [4, 8])
def test_operands_of_attention_are_compared_too(tmp_path, bits):
    model, given = transformer(depth=1, weight_bits=bits, activation_bits=bits)
    network = Network(model, given["model"], CLASSES, InputSpec.of(model, 32))
    path = tmp_path / "model.onnx"
    written = export_onnx(network, path)
    assert written["quantized_activations"] == 4 + 1 + 4  # of layers, of the classifier, of products
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = compare_onnx(path, model, images)
    assert found.differing_codes <= 1e-4 * found.codes
    assert found.logit_error < 1e-5
    assert found.unexplained == 0
    for fused in (False, True):
        assert check_onnx(path, model, images, fused)["equal_predictions"] == 1
