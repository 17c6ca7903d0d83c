"""A profile covers a few steps, and is written once."""

import json
import logging

import pytest
import torch

from micronet_cli.training.profile import StepProfiler


def test_without_a_path_nothing_is_profiled():
    profiler = StepProfiler(None)
    for _ in range(10):
        profiler.step()
    assert profiler.profiler is None
    profiler.finish()


@pytest.mark.parametrize("steps", [pytest.param(9, id="to the end"), pytest.param(4, id="a run that ends before")])
def test_a_trace_is_written_and_the_top_costs_are_named(tmp_path, caplog, steps):
    caplog.set_level(logging.INFO)
    profiler = StepProfiler(tmp_path / "new" / "profile.json")
    for _ in range(steps):
        torch.ones(40, 40) @ torch.ones(40, 40)
        profiler.step()
    profiler.finish()
    events = json.loads((tmp_path / "new" / "profile.json").read_text())["traceEvents"]
    assert any("aten::mm" in event.get("name", "") for event in events)
    assert caplog.text.count("top costs") == 1
    assert f"profile of {min(steps, 7) - 2} steps" in caplog.text
    assert "%  aten::" in caplog.text


def test_a_run_shorter_than_the_first_step_writes_nothing(tmp_path):
    profiler = StepProfiler(tmp_path / "profile.json")
    profiler.step()
    profiler.finish()
    assert not (tmp_path / "profile.json").exists()
