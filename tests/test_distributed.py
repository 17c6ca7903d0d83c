"""Several processes train one network as one process would."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from micronet_cli import distributed
from micronet_cli.checkpoint import load
from micronet_cli.explore.trial import Trial
from tests.conftest import metrics_of

COMMON = (
    "model=resnet8", "data=digits", "data.input_size=16", "data.batch_size=64", "trainer.max_steps=20",
    "trainer.freeze_bn_at=0", "optim.lr=0.01", "prune=agp",
)  # fmt: skip


def state_of(run):
    return load(str(run)).model.state_dict()


def numbers(rank_sum):
    """Runs in each process."""
    with distributed.process_group():
        mine = torch.tensor([float(distributed.rank() + 1)])
        low, high = distributed.range_over_ranks(torch.tensor(-mine.item()), torch.tensor(mine.item()))
        return {
            "sum": distributed.sum_over_ranks(mine.clone()).item() == rank_sum,
            "range": (low.item(), high.item()),
            "first": distributed.from_rank_zero(distributed.rank()),
            "all": distributed.gather(distributed.rank()),
        }


def test_one_process_is_the_plain_case():
    """Without a process group every call answers for this process alone, and waits for nobody."""
    values = torch.tensor([1.0, 2.0])
    assert distributed.sum_over_ranks(values) is values
    low, high = torch.tensor(-1.0), torch.tensor(2.0)
    assert distributed.range_over_ranks(low, high) == (low, high)
    assert distributed.from_rank_zero("x") == "x"
    assert distributed.gather(3) == [3]
    assert [distributed.set_anywhere(flag, torch.device("cpu")) for flag in (True, False)] == [True, False]
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    distributed.wait_for_all()


def test_one_process_leaves_a_network_alone():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert distributed.data_parallel(model) is model
    model[0].weight.grad = torch.ones(2, 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    distributed.average_gradients(list(model.parameters()))
    distributed.average_batch_norm(model)
    distributed.broadcast_model(model)
    assert torch.equal(model[0].weight.grad, torch.ones(2, 2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("variables", "started"),
    [
        pytest.param({}, False, id="by hand"),
        pytest.param({"RANK": "0"}, False, id="half a launcher"),
        pytest.param({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, True, id="torchrun"),
    ],
)
def test_a_launcher_is_known_by_its_variables(monkeypatch, variables, started):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert distributed.started_by_launcher() is started
    assert distributed.local_rank() == int(variables.get("LOCAL_RANK", 0))


def test_no_launcher_makes_no_group(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with distributed.process_group():
        assert not torch.distributed.is_initialized()


def test_a_launched_process_is_in_the_group_for_the_block(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "0")
    with distributed.process_group():
        assert torch.distributed.is_initialized()
        assert distributed.gather("x") == ["x"]
        low, high = distributed.range_over_ranks(torch.tensor(-1.0), torch.tensor(2.0))
        assert (low.item(), high.item()) == (-1.0, 2.0)
    assert not torch.distributed.is_initialized()


def test_two_processes_are_one(micronet, trained):
    """The same weights within 1e-5 after 20 steps, the same masks, and every image counted once."""
    tune = ("stage=prune", f"init_from={trained}", *COMMON[3:])
    one, two = (micronet(*tune, f"trainer.devices={devices}") for devices in (1, 2))
    first, second = state_of(one), state_of(two)
    for name, tensor in first.items():
        assert torch.allclose(tensor.float(), second[name].float(), rtol=0, atol=1e-5), name
    assert metrics_of(one)["images"] == metrics_of(two)["images"] == 359
    assert metrics_of(one)["top1"] == pytest.approx(metrics_of(two)["top1"], abs=0.3)


@pytest.mark.slow
def test_mistake_of_two_processes_is_told_once(micronet, capfd):
    with pytest.raises(SystemExit) as caught:
        micronet("stage=train", *COMMON[:3], "data.batch_size=3", "trainer.devices=2")
    said = capfd.readouterr().err
    assert caught.value.code == 2
    assert said.count("data.batch_size=3: 2 processes need a multiple of 2") == 1
    assert "Traceback" not in said
    assert "resume=true" not in said


@pytest.mark.slow
def test_primitives():
    before = [signal.getsignal(number) for number in distributed.STOPPING]
    found = distributed.launch(2, numbers, 3.0, on_failure="")
    assert [signal.getsignal(number) for number in distributed.STOPPING] == before  # Ctrl-C is the caller's again
    assert found == {"sum": True, "range": (-2.0, 2.0), "first": 0, "all": [0, 1]}


def ranges_of(batches):
    """Input ranges from another number of batches in each process."""
    with distributed.process_group():
        trial = Trial(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
        mine = [torch.full((1, 4), 1.0 + distributed.rank())] * (batches - distributed.rank())
        count = trial.watch_inputs(mine)
        return count, trial.ranges["1"].high.item()


@pytest.mark.slow
def test_processes_with_different_numbers_of_batches_agree_on_ranges():
    assert distributed.launch(2, ranges_of, 3, on_failure="") == (3, 2.0)


@pytest.mark.slow
def test_observers_see_the_whole_batch(micronet):
    """The activation ranges of two processes are those of one."""
    qat = ("stage=qat", *COMMON[:-1], "trainer.max_steps=1")
    one, two = (state_of(micronet(*qat, f"trainer.devices={devices}")) for devices in (1, 2))
    ranges = [name for name in one if name.endswith(("low", "high", "seen"))]
    assert len(ranges) == 21
    for name in ranges:
        assert torch.allclose(one[name], two[name], rtol=1e-4, atol=1e-5), name


def start(directory, *extra):
    command = [sys.executable, "-m", "micronet_cli.command.cli", "stage=train", *COMMON, "trainer.devices=2", *extra]
    command += [
        f"hydra.run.dir={directory}",
        "trainer.max_steps=400",
        "trainer.epochs=20",
        "trainer.checkpoint_minutes=0",
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def workers(parent):
    """Process ids of the ranks, in the order in which they were started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            command = (path.parent / "cmdline").read_text()
            ppid = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if ppid == parent and "spawn_main" in command:
            found.append(int(path.parent.name))
    return sorted(found)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker in /proc")
def test_killed_rank_leaves_a_resumable_run(tmp_path):
    run = tmp_path / "run"
    process = start(run)
    deadline = time.monotonic() + 200
    while not (run / "resume" / "state.pt").is_file():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(workers(process.pid)[1], signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "trainer.devices=2:\n  rank 1 ended with exit code -9" in said
    assert f"resume=true and hydra.run.dir={run}" in said
    before = torch.load(run / "resume" / "state.pt", weights_only=True)["step"]
    resumed = start(run, "resume=true")
    _, said = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, said
    steps = [json.loads(line)["step"] for line in (run / "history.jsonl").read_text().splitlines()]
    assert before < steps[-1] == 400


@pytest.mark.slow
def test_torchrun_runs_the_same_command(tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    command += ["micronet_cli.command.cli", "stage=train", *COMMON, f"hydra.run.dir={run}"]
    subprocess.run(command, check=True, timeout=300, cwd=tmp_path)
    assert metrics_of(run)["images"] == 359
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
