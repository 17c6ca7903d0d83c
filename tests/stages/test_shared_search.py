"""A run as one of several workers of a search: what they must have in common, passwords, and the end of both."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from micronet_cli.errors import UserError
from micronet_cli.explore.search import Search
from micronet_cli.stages import shared_search
from micronet_cli.stages.shared_search import Wait, check_storage, common_settings
from tests.conftest import TINY, metrics_of
from tests.explore.test_worker import HOLD

pytest.importorskip("optuna")
EVALUATIONS = (
    "stage=search", *TINY, "search.stage=eval", "search.trials=2", "search.space.prune=null", "resume=true",
    "search.space.seed=[0,1,2,3]", "search.objectives.micronet_score=null", "search.sampler=RandomSampler",
    "search.grace_seconds=20",
)  # fmt: skip


def summary_of(run):
    return json.loads((run / "summary.json").read_text())


def a_search(storage):
    return Search({"seed": [0, 1]}, objectives={"top1": "maximize"}, storage=storage)


def test_a_second_worker_reports_the_same_without_a_trial_of_its_own(micronet, tmp_path, mistake):
    storage = f"search.storage={tmp_path}/study.journal"
    first = micronet(*EVALUATIONS, storage, "search.trials=1")
    second = micronet(*EVALUATIONS, storage, "search.trials=1")
    assert metrics_of(first)["pareto"] == metrics_of(second)["pareto"] == [0]
    assert metrics_of(second)["trials"] == 1
    assert not (second / "0").exists()
    assert not (second / "study.db").exists()
    ours, theirs = summary_of(first), summary_of(second)
    for mine, other in zip(ours, theirs, strict=True):
        assert other.pop("directory") == str(first / mine.pop("directory"))
        assert mine == other
        assert ("test_top1" in mine) == mine["pareto"]

    said = mistake(*EVALUATIONS, storage, "trainer.epochs=3")
    assert "trainer.epochs=3: the study in" in said
    assert "holds a study already; resume=true joins it" in mistake(*EVALUATIONS, storage, "resume=false")


def test_a_refused_worker_leaves_nothing(mistake, tmp_path):
    run = tmp_path / "run"
    said = mistake(*EVALUATIONS, "search.storage=nowhere/study.journal", "resume=false", directory=run)
    assert "search.storage='nowhere/study.journal': no directory" in said
    assert not run.exists()


def test_a_directory_where_a_worker_is_at_work_stays_its_own(mistake, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.json").write_text('{"status": "interrupted"}')
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run / "worker")], **pipes) as process:
        process.stdout.readline()
        said = mistake(*EVALUATIONS, f"search.storage={tmp_path}/study.journal", directory=run)
        process.kill()
    assert "another worker is at work there; give each its own" in said
    assert metrics_of(run) == {"status": "interrupted"}


@pytest.mark.filterwarnings("ignore:Query string argument")
def test_password_of_the_environment_is_in_no_file(micronet, tmp_path, monkeypatch):
    # SQLite takes no password; what stands in its URL in the place of one is not looked at.
    monkeypatch.setenv("STUDY_URL", f"sqlite:///{tmp_path}/study.db?password=s3cret")
    run = micronet(
        "stage=search", *TINY, "search.stage=score", "prune=agp", "search.trials=1", "search.objectives.top1=null",
        "search.storage=${oc.env:STUDY_URL}",
    )  # fmt: skip
    recorded = OmegaConf.load(run / "config.yaml").search.storage
    assert recorded == f"sqlite:///{tmp_path}/study.db?password=***"
    assert f"search.storage={recorded}" in metrics_of(run)["overrides"]
    for path in run.rglob("*"):
        if path.is_file():
            assert b"s3cret" not in path.read_bytes()


def test_password_of_a_config_is_refused():
    config = OmegaConf.create({"search": {"storage": "postgresql://me:***@host/db"}})
    with pytest.raises(UserError, match=r"search\.storage='postgresql://me:\*\*\*@host/db': must hold no password"):
        check_storage(a_search(config.search.storage), config)


def test_password_is_taken_out_of_the_config():
    config = OmegaConf.create({"search": {"storage": "postgresql://me:secret@host/db"}})
    check_storage(a_search(config.search.storage), config)
    assert config.search.storage == "postgresql://me:***@host/db"


def test_what_workers_have_in_common(composed):
    config = composed("stage=search", "init_from=/somewhere", "data=digits", "data.workers=3", "trainer.epochs=7")
    found = common_settings(config)
    assert found["trainer.epochs"] == 7
    assert found["eval.split"] == "test"
    assert found["data.val_fraction"] == 0.1
    left_out = {key.partition(".")[0] for key in ("search.trials", "init_from", "resume", "stage.name")}
    assert left_out.isdisjoint(key.partition(".")[0] for key in found)
    assert "data.workers" not in found


JOINS = {"++resume=true": True, "resume=True resume=false": False, "seed=1": False}


@pytest.mark.parametrize("typed", JOINS)
def test_a_sweep_s_job_joins_though_its_directory_is_empty(monkeypatch, typed):
    context = SimpleNamespace(overrides=SimpleNamespace(task=["stage=search", *typed.split()]))
    monkeypatch.setattr(shared_search.HydraConfig, "get", lambda: context)
    assert shared_search.joins(OmegaConf.create({"resume": False})) is JOINS[typed]


def test_waiting_names_each_trial_once(caplog, monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    caplog.set_level("INFO")
    wait = Wait(a_search("a.journal"))
    for others in ({3: "one"}, {3: "one", 4: "two"}, {4: "two"}):
        wait.once(others)
    assert [record.getMessage() for record in caplog.records] == [
        "waiting for trial 3: one has it",
        "waiting for trial 4: two has it",
    ]
    assert slept == [2.0] * 3


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_what_a_stopped_worker_had_is_run_by_the_other(tmp_path, how):
    """Two command lines; the first is stopped in its trial, and the second ends the search."""
    journal = tmp_path / "study.journal"
    arguments = [*EVALUATIONS, f"search.storage={journal}", "search.grace_seconds=5", "search.stage=train"]
    arguments += ["search.space.seed=[0]", "trainer.epochs=1000", "search.trials=1"]
    command = [sys.executable, "-m", "micronet_cli.command.cli"]
    first = subprocess.Popen([*command, *arguments, f"hydra.run.dir={tmp_path}/first"], env={**os.environ})
    try:
        until = time.monotonic() + 300
        while not (tmp_path / "first" / "0" / "history.jsonl").is_file() and time.monotonic() < until:
            time.sleep(0.05)
        first.send_signal(how)
        assert first.wait(300) == (130 if how == signal.SIGINT else -how)
    finally:
        first.kill()
    log = tmp_path / "second.log"
    with log.open("w") as file:
        second = subprocess.Popen(
            [*command, *arguments, f"hydra.run.dir={tmp_path}/second"], env={**os.environ}, stdout=file
        )
    try:
        while not (tmp_path / "second" / "0" / "history.jsonl").is_file() and time.monotonic() < until:
            time.sleep(0.05)
        assert (tmp_path / "second" / "0" / "history.jsonl").is_file()
        assert ("is silent" in log.read_text()) == (how == signal.SIGKILL)
    finally:
        second.kill()
        second.wait()
