"""``stage=latency`` as a user types it: rows, metrics, reasons, mistakes, and what an interruption leaves."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from micronet_cli.artifact.engines.openvino import OpenVino
from micronet_cli.latency.measurement import Measurement
from micronet_cli.stages import latency
from tests.artifact.engines.linear_file import network, write
from tests.conftest import TINY, metrics_of

pytest.importorskip("onnxruntime", reason="needs the extra export")
ORT = ("latency.engines=onnxruntime", "latency.seconds=0.01")


@pytest.fixture(autouse=True)
def no_peaks(monkeypatch):
    """Each would be a process of its own."""
    monkeypatch.setattr(Measurement, "find_peaks", lambda self: None)


@pytest.fixture
def tiny(tmp_path):
    return write(network(), tmp_path / "tiny.onnx")


def rows_of(run):
    with (run / "latency.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_file_of_ones_own_has_rows_and_without_a_dense_network_no_ratio(micronet, tiny, capsys):
    run = micronet("stage=latency", f"init_from={tiny}", *ORT, "latency.batch_sizes=[2,1]")
    rows = rows_of(run)
    assert [(row["file"], row["batch_size"], row["latency_ratio"]) for row in rows] == [
        ("tiny.onnx", "2", ""),
        ("tiny.onnx", "1", ""),
    ]
    assert float(rows[0]["first_quartile_ms"]) <= float(rows[0]["latency_ms"]) <= float(rows[0]["third_quartile_ms"])
    metrics = metrics_of(run)
    assert metrics["latency_ms"] == float(rows[0]["latency_ms"])
    assert (metrics["latency_engine"], metrics["latency_batch_size"]) == ("onnxruntime", 2)
    assert metrics["latency_ratio"] is None
    assert "tiny.onnx  onnxruntime" in capsys.readouterr().out


def test_what_was_measured_before_an_interruption_stays(micronet, tiny, tmp_path, monkeypatch):
    run_rounds = Measurement.run

    def interrupted(self, seconds):
        run_rounds(self, seconds)
        if self.threads == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Measurement, "run", interrupted)
    with pytest.raises(SystemExit) as stopped:
        micronet("stage=latency", f"init_from={tiny}", *ORT, "latency.threads=[1,2,1]", directory=tmp_path / "run")
    assert stopped.value.code == 130
    assert [row["threads"] for row in rows_of(tmp_path / "run")] == ["1", "2"]
    assert metrics_of(tmp_path / "run")["status"] == "interrupted"


def test_mistakes_have_a_way_out(mistake, tiny, tmp_path):
    assert "did you mean onnxruntime" in mistake("stage=latency", "latency.engines=[onnxruntimes]")
    assert "latency.batch_sizes=[0]: must be at least 1" in mistake("stage=latency", "latency.batch_sizes=[0]")
    assert "no such file" in mistake("stage=latency", f"init_from={tmp_path}/none.onnx")
    said = mistake("stage=latency", f"init_from={tiny}", "latency.engines=pytorch")
    assert "none of them can open this network" in said
    assert "an ONNX file, which stage=latency alone takes" in mistake("stage=eval", f"init_from={tiny}")


def test_a_busy_machine_is_said(monkeypatch, caplog):
    monkeypatch.setattr("os.getloadavg", lambda: (64.0, 1.0, 1.0), raising=False)
    monkeypatch.setattr(latency, "cores", lambda: 2)
    latency._warn_of_others()
    assert "load 64.0 on 2 cores" in caplog.text
    latency._warn_of_too_many([1, 4])
    assert "[1, 4]: more than the 2 cores" in caplog.text


@pytest.mark.slow
def test_a_quantised_network_stands_beside_the_dense_one(micronet, capsys):
    trained = micronet("stage=qat", *TINY, "quantize=w4a4", "trainer.max_steps=2")
    engines = ("latency.engines=[pytorch,onnxruntime]", "latency.seconds=0.01")
    capsys.readouterr()
    run = micronet("stage=latency", f"init_from={trained}", *engines, "export.int8=true")
    rows = rows_of(run)
    assert [(row["file"], row["engine"]) for row in rows] == [
        ("", "pytorch"), ("dense.onnx", "onnxruntime"),
        ("", "pytorch"), ("model.onnx", "onnxruntime"), ("model.int8.onnx", "onnxruntime"),
    ]  # fmt: skip
    assert max(float(row["latency_ratio"]) for row in rows[:2]) == 1.0
    metrics = metrics_of(run)
    assert metrics["latency_ms"] == min(float(row["latency_ms"]) for row in rows[2:])
    slower = [row for row in rows if float(row["engine_ratio"]) < 0.97]
    said = capsys.readouterr().out
    assert said.count("slower than the dense network there") == len(slower)
    assert said.count("operators: ") >= len(slower)


@pytest.mark.slow
def test_files_of_an_export_are_measured_as_they_are(micronet):
    trained = micronet("stage=qat", *TINY, "quantize=w4a4", "trainer.max_steps=1")
    exported = micronet("stage=export", f"init_from={trained}", "export.weights=false")
    run = micronet("stage=latency", f"init_from={exported}", *ORT)
    rows = rows_of(run)
    assert [row["file"] for row in rows] == ["dense.onnx", "model.onnx"]
    assert int(rows[1]["file_bytes"]) == (exported / "model.onnx").stat().st_size


@pytest.mark.slow
@pytest.mark.skipif(not OpenVino().installed(), reason="needs the extra openvino")
def test_ctrl_c_while_openvino_runs_leaves_what_was_measured(tiny, tmp_path):
    """As a terminal sends it: to every process of the command, on a machine whose network does not answer."""
    run = tmp_path / "run"
    options = ["latency.engines=openvino", "latency.seconds=100", f"hydra.run.dir={run}"]
    command = [sys.executable, "-m", "micronet_cli.command.cli", "stage=latency", f"init_from={tiny}", *options]
    log = run / "micronet.log"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            command,
            env=os.environ | {"HOME": str(tmp_path), "https_proxy": proxy, "CI": ""},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            until = time.monotonic() + 60
            while not (log.is_file() and "take turns" in log.read_text()) and time.monotonic() < until:
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.05)
            time.sleep(0.2)  # some runs are measured
            os.killpg(process.pid, signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert said.startswith("micronet: interrupted; ")
    assert len(said.splitlines()) == 1
    assert [row["engine"] for row in rows_of(run)] == ["openvino"]
    assert metrics_of(run)["status"] == "interrupted"
