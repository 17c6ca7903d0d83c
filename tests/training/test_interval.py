"""Losses read at an interval's end: the same training, few waits for the device, and a NaN named as ever."""

import pytest
import torch
from synchronisations import Reads

from micronet_cli.errors import UserError
from micronet_cli.training.meter import Meter
from micronet_cli.training.settings import TrainerSettings
from tests.conftest import history_of
from tests.training.test_trainer import equal, fit, weights


def deferred(*arguments, **options):
    fitted = fit(*arguments, **options)
    fitted.interval.runs_ahead = True
    return fitted


def reads(directory, steps, **settings):
    """Reads of one interval of so many steps."""
    trained = TrainerSettings(max_steps=steps, epochs=20, log_interval_steps=steps, **settings)
    fitted = deferred(directory, trained, compress=True)
    fitted.interval._ends_at = lambda step: step == steps
    counter = Reads()
    batch = next(iter(fitted.train.batches()))
    fitted.train.batches = lambda epoch, first: iter([batch] * steps)
    fitted.learner.model.train()
    fitted.interval.begin()
    meter = Meter()
    with counter:
        for _ in range(steps):
            fitted.learner.train_batch(*batch, meter)
        meter.take()
    return counter.count


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.9, "clip_grad_norm": 1.0}], ids=["plain", "average and clip"])
def test_reads_do_not_grow_with_the_steps_of_an_interval(tmp_path, settings):
    """Pruned and quantised: what waits for a GPU waits once an interval."""
    few, many = (reads(tmp_path / str(steps), steps, **settings) for steps in (2, 6))
    assert few == many <= 2


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_nan_is_named_with_step_and_layer(tmp_path, monkeypatch, accumulate):
    settings = TrainerSettings(epochs=2, max_steps=5, log_interval_steps=5, accumulate_steps=accumulate)
    fitted = deferred(tmp_path, settings, compress=True)
    step = fitted.learner.train_batch

    def poison(*arguments):
        if fitted.learner.step == 3:
            with torch.no_grad():
                fitted.learner.model.layer2[0].bn2.bias[0] = float("nan")
        step(*arguments)

    monkeypatch.setattr(fitted.learner, "train_batch", poison)
    with pytest.raises(UserError, match=r"loss is nan at step 3, first seen in parameter layer2\.0\.bn2\.bias"):
        fitted.run()
    assert not fitted.run_dir.state.exists()


def test_a_loss_that_is_finite_the_second_time_names_the_interval(tmp_path, monkeypatch):
    fitted = deferred(tmp_path, TrainerSettings(max_steps=4, log_interval_steps=4))
    objective = fitted.learner.objective
    calls = iter(range(100))

    def once(*arguments):
        loss, logits = objective(*arguments)
        return (loss * float("nan") if next(calls) == 1 else loss), logits

    monkeypatch.setattr(fitted.learner, "objective", once)
    with pytest.raises(UserError, match="a loss between step 0 and step 3 is not finite, and was finite when"):
        fitted.run()


def test_reading_at_the_end_changes_nothing(tmp_path):
    """Same weights bit for bit, same history but for the speed."""
    settings = TrainerSettings(max_steps=6, log_interval_steps=4, ema_decay=0.9, accumulate_steps=2, epochs=3)
    runs = {"at once": fit, "at the end": deferred}
    trained, histories = [], []
    for name, make in runs.items():
        fitted = make(tmp_path / name, settings, compress=True)
        fitted.run()
        trained.append(weights(fitted))
        history = history_of(tmp_path / name)
        for line in history:
            line.pop("images_per_second", None)
        histories.append(history)
    assert equal(*trained)
    assert histories[0] == histories[1]
