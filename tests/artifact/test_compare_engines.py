"""Files in engines beside their network: exact figures, every engine, and a fault in the layer where it is."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from micronet_cli.artifact.compare_engines import (
    Agreement,
    EngineReport,
    onnx_reports,
    packed_report,
    rounding_report,
)
from micronet_cli.artifact.onnx import export_onnx
from micronet_cli.compression.quantization.quantizer import Quantizer
from micronet_cli.network import Network
from tests.artifact.exportable import ALL, SPEC, settle

IMAGES = torch.randn(3, *SPEC.size, generator=torch.Generator().manual_seed(0))
LEVELS = {f"onnxruntime {level}" for level in ("disable_all", "basic", "extended", "layout", "all")}


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    """A network of three 8-bit layers, and its file."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(400, 5))
    Quantizer(ALL, 8, 8).attach(model)
    network = Network(settle(model, IMAGES), {}, list("abcde"), SPEC)
    path = tmp_path_factory.mktemp("engines") / "model.onnx"
    export_onnx(network, path)
    return network.model, path


def test_agreement_counts_steps_and_signal_over_error():
    agreement = Agreement()
    agreement.add(torch.tensor([3, 4]), torch.tensor([3, 4]))
    assert (agreement.snr_db, agreement.within_one_step) == (None, 1)
    agreement.add(torch.tensor([5, 0]), torch.tensor([6, 2]))
    assert agreement.snr_db == pytest.approx(10)  # 50 over 5
    assert agreement.within_one_step == 0.75


def test_worst_layer_is_the_one_with_codes_off_by_more_than_a_step():
    report = EngineReport()
    report.add_codes("noisy", torch.tensor([1, 1]), torch.tensor([2, 2]))
    report.add_codes("wrong", torch.tensor([100, 100]), torch.tensor([100, 102]))
    assert report.worst_layer == "wrong"
    assert report.as_json()["layers"]["wrong"]["codes_within_one_step"] == 0.5


def test_every_engine_computes_the_same_layers(quantised):
    model, path = quantised
    reports = onnx_reports(path, model, IMAGES)
    assert set(reports) >= LEVELS
    for report in reports.values():
        assert len(report.layers) == 3
        assert all(layer.far_values == 0 for layer in report.layers.values())
        assert report.logits.snr_db > 40


def test_a_fault_is_named_by_its_layer(quantised, tmp_path):
    model, path = quantised
    proto = onnx.load(path)
    weights = [tensor for tensor in proto.graph.initializer if list(tensor.dims) == [4, 4, 1, 1]]
    (codes,) = weights
    codes.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(codes)[::-1].copy(), codes.name))
    wrong = tmp_path / "wrong.onnx"
    onnx.save(proto, wrong)
    reports = onnx_reports(wrong, model, IMAGES)
    for report in reports.values():
        layers = report.layers
        assert report.worst_layer == "4.input_fake_quantize"
        assert layers["2.input_fake_quantize"].within_one_step == 1


def test_without_layers_logits_alone_are_compared(quantised):
    model, path = quantised
    reports = onnx_reports(path, model, IMAGES, by_layer=False)
    assert all(not report.layers and report.logits.values == 15 for report in reports.values())


def test_the_network_itself_differs_by_rounding_alone(quantised):
    model, _ = quantised
    for report in (packed_report(model, model, IMAGES), rounding_report(model, IMAGES)):
        assert len(report.layers) == 3
        assert all(layer.far_values == 0 for layer in report.layers.values())
    assert packed_report(model, model, IMAGES).logits.snr_db is None
    assert np.isfinite(rounding_report(model, IMAGES).logits.snr_db)
