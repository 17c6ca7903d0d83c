"""The trainer config group: what its constructor refuses, and which device it names."""

import pytest
import torch

from micronet_cli.errors import UserError
from micronet_cli.training.settings import RunLength, TrainerSettings


@pytest.mark.parametrize(
    ("key", "value", "must"),
    [
        pytest.param("epochs", 0, "at least 1", id="epochs"),
        pytest.param("devices", 0, "at least 1", id="devices"),
        pytest.param("accumulate_steps", -1, "at least 1", id="accumulate_steps"),
        pytest.param("log_interval_steps", 0, "at least 1", id="log_interval_steps"),
        pytest.param("max_steps", 0, "at least 1", id="max_steps"),
        pytest.param("freeze_bn_at", 1.5, "a progress in [0, 1]", id="freeze_bn_at"),
        pytest.param("clip_grad_norm", -1, "more than 0, or null", id="clip_grad_norm"),
        pytest.param("reestimate_bn_batches", 0, "more than 0, or null", id="reestimate_bn_batches"),
        pytest.param("label_smoothing", 1.0, "a number in [0, 1)", id="label_smoothing"),
        pytest.param("ema_decay", -0.1, "a number in [0, 1)", id="ema_decay"),
    ],
)
def test_an_impossible_setting_is_refused_by_name(key, value, must):
    with pytest.raises(ValueError, match="^" + key) as caught:
        TrainerSettings(**{key: value})
    assert str(caught.value) == f"{key}={value}: must be {must}"


@pytest.mark.parametrize("at", [0.0, 1.0])
def test_both_ends_of_a_run_may_freeze_batch_norm(at):
    assert TrainerSettings(freeze_bn_at=at).freeze_bn_at == at


def test_cpu_is_the_cpu():
    assert TrainerSettings(device="cpu").torch_device() == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_auto_takes_the_cpu_where_there_is_no_gpu():
    assert TrainerSettings().torch_device() == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_a_mistake(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"trainer\.device=cuda: .*use trainer\.device=auto"):
        TrainerSettings(device="cuda").torch_device()


def test_auto_takes_the_processs_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert TrainerSettings().torch_device() == torch.device("cuda", 3)
    assert TrainerSettings(device="cpu").torch_device() == torch.device("cpu")


LENGTHS = {
    "whole epochs": ({"epochs": 3}, RunLength(total=30, steps_per_epoch=10)),
    "cut short": ({"epochs": 3, "max_steps": 25}, RunLength(total=25, steps_per_epoch=10)),
    "accumulated, the rest of an epoch left out": ({"accumulate_steps": 3, "epochs": 2}, RunLength(6, 3)),
}


@pytest.mark.parametrize(("settings", "length"), LENGTHS.values(), ids=LENGTHS.keys())
def test_length_of_a_run_of_ten_batches_an_epoch(settings, length):
    assert TrainerSettings(**settings).length(batches=10, batch_size=4) == length


def test_an_epoch_without_a_step_is_refused():
    with pytest.raises(UserError, match=r"trainer\.accumulate_steps=3: train has only 2 batches of data\.batch_size=4"):
        TrainerSettings(accumulate_steps=3).length(batches=2, batch_size=4)


def test_steps_fall_into_epochs():
    length = RunLength(total=25, steps_per_epoch=10)
    assert length.epochs == 3
    assert [length.epoch_of(step) for step in (1, 10, 11, 25)] == [0, 0, 1, 2]
    assert [step for step in range(1, 26) if length.ends_epoch(step)] == [10, 20, 25]
