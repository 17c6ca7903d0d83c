"""Guards one run of a stage: what metrics.json says however it ends, and which runs are not done again."""

import errno
import random
import sys
import types
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from micronet_cli.errors import Interrupted, UserError
from micronet_cli.stages.execute import execute, execute_missing, summary
from tests.conftest import TINY, metrics_of

MODULE = "micronet_cli.stages.made_up"


@pytest.fixture
def stage(monkeypatch):
    """A stage that draws three random numbers; ``stage.run`` may be replaced."""
    module = types.ModuleType(MODULE)
    module.run = lambda _: {"drawn": [random.random(), float(np.random.rand()), float(torch.rand(()))]}
    monkeypatch.setitem(sys.modules, MODULE, module)
    return module


@pytest.fixture
def config(composed, stage):
    return lambda *more: composed("stage=score", *TINY, f"stage.module={MODULE}", "stage.name=made_up", *more)


def failing(error):
    def run(_):
        raise error

    return run


def test_metrics_say_how_the_run_came_about(config, tmp_path):
    metrics = execute(config("seed=3"), tmp_path, ["seed=3"])
    assert (metrics["stage"], metrics["status"], metrics["seed"]) == ("made_up", "completed", 3)
    assert metrics["overrides"] == ["seed=3"]
    assert metrics["wall_seconds"] >= 0
    assert torch.__version__.startswith(metrics["versions"]["torch"])
    assert metrics_of(tmp_path) == metrics
    assert (tmp_path / "config.yaml").is_file()


def test_seed_decides_every_random_number(config, tmp_path):
    first, again, other = (execute(config(f"seed={seed}"), tmp_path / "x")["drawn"] for seed in (1, 1, 2))
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_seed_above_32_bits_is_taken(config, tmp_path):
    assert execute(config(f"seed={2**32 + 1}"), tmp_path)["seed"] == 2**32 + 1


class Interruption(NamedTuple):
    error: BaseException
    reason: str


INTERRUPTIONS = {
    "signal": Interruption(Interrupted("stopped at step 3; whatever"), "stopped at step 3"),
    "keyboard": Interruption(KeyboardInterrupt(), "interrupted"),
}


@pytest.mark.parametrize("case", INTERRUPTIONS.values(), ids=INTERRUPTIONS.keys())
def test_interrupted_run_says_how_to_go_on(config, stage, tmp_path, case):
    stage.run = failing(case.error)
    with pytest.raises(Interrupted) as caught:
        execute(config(), tmp_path)
    how = f"go on with the same command, resume=true and hydra.run.dir={tmp_path}"
    assert str(caught.value) == f"{case.reason}; {how}"
    assert metrics_of(tmp_path)["status"] == "interrupted"


def test_refused_run_leaves_the_directory_as_it_was(config, stage, tmp_path):
    execute(config("seed=1"), tmp_path)
    stage.run = failing(UserError("x: no"))
    with pytest.raises(UserError, match="x: no"):
        execute(config("seed=2"), tmp_path)
    assert metrics_of(tmp_path)["seed"] == 1
    assert not (tmp_path / "previous").exists()
    with pytest.raises(UserError):
        execute(config(), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_mistake_found_during_the_work_is_a_failed_run(config, stage, tmp_path):
    def begin_and_fail(job):
        job.run.record({"kind": "step", "step": 1})
        raise UserError("x: no")

    stage.run = begin_and_fail
    with pytest.raises(UserError):
        execute(config(), tmp_path)
    assert metrics_of(tmp_path)["status"] == "failed"


def test_full_disk_names_the_last_checkpoint(config, stage, tmp_path):
    stage.run = failing(OSError(errno.ENOSPC, "no space"))
    with pytest.raises(UserError, match=r"the disk is full; the last good checkpoint is .*last\.safetensors"):
        execute(config(), tmp_path)


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "no"), ZeroDivisionError("x")], ids=["access", "bug"])
def test_other_errors_go_through_and_are_noted(config, stage, tmp_path, error):
    stage.run = failing(error)
    with pytest.raises(type(error)):
        execute(config(), tmp_path)
    assert metrics_of(tmp_path)["status"] == "failed"


def test_mistake_touches_nothing(config, tmp_path):
    execute(config(), tmp_path)
    before = (tmp_path / "metrics.json").read_bytes()
    with pytest.raises(UserError, match="seed='x'"):
        execute(config("seed=x"), tmp_path)
    assert (tmp_path / "metrics.json").read_bytes() == before
    assert not (tmp_path / "previous").exists()


def test_stage_s_own_check_stands_before_the_usual_one(config, stage, tmp_path):
    stage.check = lambda _: {"own": 7}
    stage.run = lambda job: {"found": job.checked["own"]}
    assert execute(config(), tmp_path)["found"] == 7


def test_completed_run_of_the_same_config_is_not_done_again(config, stage, tmp_path):
    first = execute_missing(config("resume=true"), tmp_path)
    stage.run = failing(AssertionError("it is done again"))
    assert execute_missing(config("resume=true"), tmp_path) == first


def test_completed_run_of_another_config_is_set_aside(config, tmp_path):
    execute_missing(config("resume=true", "seed=1"), tmp_path)
    assert execute_missing(config("resume=true", "seed=2"), tmp_path)["seed"] == 2
    assert metrics_of(tmp_path / "previous")["seed"] == 1


def test_failed_run_is_gone_on_with(config, stage, tmp_path):
    stage.run, working = failing(ZeroDivisionError()), stage.run
    with pytest.raises(ZeroDivisionError):
        execute_missing(config("resume=true"), tmp_path)
    stage.run = working
    assert execute_missing(config("resume=true"), tmp_path)["status"] == "completed"
    assert not (tmp_path / "previous").exists()


def test_without_resume_everything_is_done_again(config, tmp_path):
    execute_missing(config(), tmp_path)
    execute_missing(config(), tmp_path)
    assert metrics_of(tmp_path / "previous")["status"] == "completed"


def test_summary_shows_the_figures_that_there_are():
    metrics = {"stage": "eval", "wall_seconds": 61.7, "top1": 91.234, "images": 10, "micronet_score": 0.0123456}
    assert summary(metrics, Path("r")) == "eval: top-1 91.23 %, 10 images, score 0.01235, 62 s; run: r"
    assert "score 0.0000123," in summary(metrics | {"micronet_score": 0.0000123456}, Path("r"))
    on_val = {"stage": "eval", "wall_seconds": 1.0, "top1": 50.0, "images": 2, "split": "val"}
    assert summary(on_val, Path("r")) == "eval: top-1 50.00 %, 2 images, on val, 1 s; run: r"
    assert summary({"stage": "report", "wall_seconds": 0.2, "top1": None}, Path("r")) == "report: 0 s; run: r"
