"""kill -9 in the middle of an epoch, then resume: the same weights to the last bit."""

import os
import signal
import subprocess
import sys
import time

import torch
from safetensors.torch import load_file

from tests.conftest import history_of

ARGUMENTS = (
    "stage=qat", "model=resnet8", "data=digits", "data.input_size=16", "data.batch_size=32", "prune=agp",
    "distill=soft_targets", "trainer.epochs=2", "trainer.ema_decay=0.9", "trainer.log_interval_steps=5",
    "trainer.checkpoint_minutes=0", "seed=5",
)  # fmt: skip


def start(directory, *arguments):
    command = [sys.executable, "-m", "micronet_cli.command.cli", *arguments, f"hydra.run.dir={directory}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_killed_and_resumed_ends_bit_identical(tmp_path, micronet):
    teacher = micronet("stage=train", "model=resnet8", "data.input_size=16", "trainer.max_steps=5")
    arguments = (*ARGUMENTS, f"distill.teacher.weights={teacher}")
    killed = start(tmp_path / "killed", *arguments)
    history = tmp_path / "killed" / "history.jsonl"
    deadline = time.monotonic() + 600
    while not (history.is_file() and history.read_text().count("\n") >= 4):
        assert killed.poll() is None, killed.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed" / "metrics.json").exists()
    saved = torch.load(tmp_path / "killed" / "resume" / "state.pt", weights_only=True)["step"]
    micronet(*arguments, "resume=true", directory=tmp_path / "killed")
    micronet(*arguments, directory=tmp_path / "whole")
    one, other = (load_file(tmp_path / name / "checkpoints" / "last.safetensors") for name in ("whole", "killed"))
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    whole, gone_on = ([line["step"] for line in history_of(tmp_path / name)] for name in ("whole", "killed"))
    assert whole == gone_on
    assert 0 < saved < whole[-1]
