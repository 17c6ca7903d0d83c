"""Rows of made-up engines: ratios to the fastest dense one, and what cannot run is left out with a reason."""

import logging
from pathlib import Path

import numpy as np
import pytest

from micronet_cli.latency import measurement
from micronet_cli.latency.measurement import Measurement, fastest_dense
from micronet_cli.latency.subjects import Subject
from tests.latency.fake import Clock, FakeEngine

IMAGES = np.zeros((2, 3, 4, 4), np.float32)


@pytest.fixture
def engines():
    clock = Clock()
    return clock, FakeEngine("one", clock), FakeEngine("two", clock, factor=0.5)


def subject(network, engine, name):
    return Subject(network, engine, Path(f"{name}.onnx"), 10)


def measured(clock, subjects):
    found = Measurement(subjects, IMAGES, 1, clock)
    found.prepare()
    found.run(10.0)
    return found


def test_ratios_are_to_the_fastest_dense_and_to_the_dense_in_the_same_engine(engines):
    clock, one, two = engines
    subjects = [subject("dense", one, "4"), subject("dense", two, "4"), subject("compressed", one, "1")]
    rows = measured(clock, subjects).rows()
    assert [row["latency_ms"] for row in rows] == [4000, 2000, 1000]
    assert [row["latency_ratio"] for row in rows] == [0.5, 1.0, 2.0]
    assert [row["engine_ratio"] for row in rows] == [1.0, 1.0, 4.0]
    assert rows[0]["images_per_second"] == 0.5


def test_without_a_dense_network_there_is_no_ratio(engines):
    clock, one, _ = engines
    (row,) = measured(clock, [subject("compressed", one, "1")]).rows()
    assert (row["latency_ratio"], row["engine_ratio"]) == (None, None)
    assert fastest_dense({row["engine"]: [1.0]}) is None


def test_what_cannot_be_opened_is_left_out_with_its_reason(engines, caplog):
    clock, one, _ = engines
    caplog.set_level(logging.WARNING)
    found = measured(clock, [subject("dense", one, "1"), subject("compressed", one, "broken")])
    assert [row["network"] for row in found.rows()] == ["dense"]
    assert found.failed == {("compressed", "broken.onnx", "one")}
    assert "broken.onnx in one does not run and is left out: no kernel for this" in caplog.text


def test_peaks_stand_in_the_rows(engines, monkeypatch):
    clock, one, _ = engines
    monkeypatch.setattr(measurement, "peak_memory_bytes", lambda engine, source, threads, shape: 7)
    found = measured(clock, [subject("dense", one, "1")])
    found.find_peaks()
    assert found.rows()[0]["peak_memory_bytes"] == 7


def test_nothing_measured_yet_is_no_row(engines):
    clock, one, _ = engines
    assert Measurement([subject("dense", one, "1")], IMAGES, 1, clock).rows() == []
