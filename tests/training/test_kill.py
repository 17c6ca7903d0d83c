"""kill -9 in the middle of an epoch, then resume: the same weights to the last bit."""

import json
import os
import signal
import subprocess
import sys
import time

import torch
from safetensors.torch import load_file

ARGUMENTS = (
    "stage=qat", "model=resnet8", "data=digits", "data.input_size=16", "data.batch_size=32", "prune=agp",
    "distill=soft_targets", "trainer.epochs=3", "trainer.ema_decay=0.9", "trainer.log_interval_steps=5",
    "trainer.checkpoint_minutes=0", "seed=5",
)  # fmt: skip


def start(directory, teacher, *extra):
    command = [sys.executable, "-m", "micronet_cli.command.cli", *ARGUMENTS, f"hydra.run.dir={directory}", *extra]
    command += [f"distill.teacher.weights={teacher}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process):
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said


def test_killed_and_resumed_ends_bit_identical(tmp_path, micronet):
    teacher = micronet("stage=train", "model=resnet8", "data.input_size=16", "trainer.max_steps=5")
    whole, killed = start(tmp_path / "whole", teacher), start(tmp_path / "killed", teacher)
    history = tmp_path / "killed" / "history.jsonl"
    deadline = time.monotonic() + 150
    while not (history.is_file() and history.read_text().count("\n") >= 9):
        assert killed.poll() is None, killed.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed" / "metrics.json").exists()
    saved = torch.load(tmp_path / "killed" / "resume" / "state.pt", weights_only=True)["step"]
    assert 0 < saved < 120
    finish(start(tmp_path / "killed", teacher, "resume=true"))
    finish(whole)
    one, other = (load_file(tmp_path / name / "checkpoints" / "last.safetensors") for name in ("whole", "killed"))
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    lines = [
        [json.loads(line)["step"] for line in (tmp_path / name / "history.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    ]
    assert lines[0] == lines[1]
