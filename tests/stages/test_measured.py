"""What ``stage=latency`` measures: a file with the dense network that ``model`` names beside it."""

import pytest

from micronet_cli.errors import UserError
from micronet_cli.stages import measured as module
from tests.stages.test_latency import ORT, no_peaks, rows_of  # noqa: F401

pytest.importorskip("onnxruntime", reason="needs the extra export")


@pytest.mark.slow
def test_the_dense_network_of_a_file_has_its_size_and_classes(micronet):
    first = micronet("stage=export", "model=resnet8", "export.weights=false", "export.images=1")
    run = micronet("stage=latency", f"init_from={first / 'model.onnx'}", "model=resnet8", *ORT)
    dense, own = rows_of(run)
    assert (dense["file"], own["file"]) == ("dense.onnx", "model.onnx")
    assert float(own["engine_ratio"]) > 0


def test_a_network_that_has_no_file_is_left_to_pytorch(caplog):
    def refused():
        raise UserError("ONNX: torch's exporter cannot follow this network")

    assert module._written(refused) == []
    assert "no file for other engines than PyTorch" in caplog.text


def test_a_missing_extra_is_a_mistake():
    def missing():
        raise ImportError("No module named 'onnxscript'", name="onnxscript")

    with pytest.raises(UserError, match=r"onnxscript is not installed.*extra `export`"):
        module._written(missing)
