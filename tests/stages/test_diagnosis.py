"""Guards what ``stage=ptq`` ends with: the worst layers in the log and in diagnosis.csv, and its figures."""

import csv

import torch

from micronet_cli.stages.diagnosis import spread
from tests.conftest import TINY, metrics_of

SPOILT = ("quantize.rules.bad.match=layer2\\.0\\.conv2", "quantize.rules.bad.weight_bits=2")
QUICK = ("ptq.images=64", "ptq.rows=2048", "ptq.adaround=null")


def table_of(run):
    with (run / "diagnosis.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_spoilt_layer_is_told_and_written(micronet, capsys):
    run = micronet("stage=ptq", *TINY, *QUICK, "quantize=w8a8", *SPOILT)
    said = capsys.readouterr().out
    rows = table_of(run)
    assert len(rows) == 7
    assert (rows[0]["layer"], rows[0]["weight_bits"], rows[0]["activation_bits"]) == ("layer2.0.conv2", "2", "8")
    assert float(rows[0]["error_saved"]) > 0.5
    assert list(rows[0])[3:] == ["error_share", "error_saved", "predictions_saved"]
    lines = said[said.index("worst layers") :].splitlines()
    assert lines[2].split()[:3] == ["layer2.0.conv2", "2", "8"]
    assert "of 8" in lines[2]
    metrics = metrics_of(run)
    assert metrics["agreement_images"] == 16
    assert 0 < metrics["float_agreement"] <= 100
    assert 0 < metrics["logits_snr_db"] < 60
    assert f"{metrics['float_agreement']:.2f} % of 16 calibration images" in said
    assert "rounded to the nearest, which costs accuracy" in said


def test_images_are_spread_over_all_batches():
    batches = torch.arange(10.0).reshape(10, 1).split(4)
    assert spread(batches, 5).flatten().tolist() == [0, 2, 4, 6, 8]
    assert spread(batches, 4).flatten().tolist() == [0, 2, 5, 7]
    assert len(spread(batches, 99)) == 10
