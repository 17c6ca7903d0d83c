"""Numbers that reach a tracker are those of history.jsonl."""

import builtins
import sys
import types

import pytest

from tests.conftest import TINY, history_of


def test_tensorboard_holds_the_history(micronet):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = micronet("stage=train", *TINY, "trainer.max_steps=4", "trainer.log_interval_steps=2", "logger=tensorboard")
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    wanted = [(line["step"], line["loss"]) for line in history_of(run) if line["kind"] == "step"]
    found = [(event.step, event.value) for event in events.Scalars("step/loss")]
    assert found == [(step, pytest.approx(loss)) for step, loss in wanted]
    assert "epoch/val_top1" in events.Tags()["scalars"]


@pytest.mark.parametrize("option", ["wandb", "mlflow"])
def test_missing_library_is_answered(mistake, monkeypatch, option):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == option:
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setitem(sys.modules, option, None)
    monkeypatch.setattr(builtins, "__import__", without)
    said = mistake("stage=train", *TINY, "trainer.max_steps=1", f"logger={option}")
    assert f"logger={option}: {option} is not installed; pip install {option}" in said


def test_wandb_and_mlflow_get_numbers_steps_and_an_end(micronet, monkeypatch):
    calls = []

    class Run:
        def log(self, values, step):
            calls.append((step, values.get("step/loss")))

        def finish(self):
            calls.append("end")

    wandb = types.ModuleType("wandb")
    wandb.init = lambda **options: calls.append(options["mode"]) or Run()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    run = micronet("stage=train", *TINY, "trainer.max_steps=2", "logger=wandb")
    losses = [(line["step"], line.get("loss")) for line in history_of(run)]
    assert calls == ["offline", *losses, "end"]

    calls.clear()
    mlflow = types.ModuleType("mlflow")
    mlflow.set_tracking_uri = mlflow.set_experiment = calls.append
    mlflow.start_run = lambda run_name: None
    mlflow.log_metrics = lambda values, step: calls.append((step, values.get("step/loss")))
    mlflow.end_run = lambda: calls.append("end")
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    run = micronet("stage=train", *TINY, "trainer.max_steps=2", "logger=mlflow")
    losses = [(line["step"], line.get("loss")) for line in history_of(run)]
    assert calls == ["sqlite:///mlflow.db", "micronet", *losses, "end"]


def test_profile_writes_a_trace_and_names_the_costs(micronet):
    run = micronet("stage=train", *TINY, "trainer.max_steps=8", "trainer.profile=true")
    assert "conv" in (run / "profile.json").read_text()
    said = (run / "micronet.log").read_text()
    assert "top costs" in said
    assert "convolution" in said
