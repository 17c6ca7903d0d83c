"""Guards sweeps as a user runs them: every launcher, failures, re-runs, Ctrl-C."""

import csv
import json
import signal
import subprocess
import sys
import time

import pytest
from omegaconf import OmegaConf

from micronet_cli.command.cli import main
from micronet_cli.command.sweeps import Sweep, number_of_jobs
from micronet_cli.errors import Interrupted, JobsFailed, UserError
from micronet_cli.runs.outcomes import Outcome, raise_for_failed
from tests.conftest import TINY, metrics_of

SWEEP = ("-m", "stage=train", *TINY, "trainer.max_steps=2")
COLUMNS = [
    "number",
    "overrides",
    "status",
    "reason",
    "top1",
    "split",
    "val_top1",
    "micronet_score",
    "sparsity",
    "seconds",
    "directory",
]


def summary_of(sweep):
    rows = json.loads((sweep / "summary.json").read_text())
    with (sweep / "summary.csv").open() as file:
        flat = list(csv.DictReader(file))
    assert list(flat[0]) == COLUMNS == list(rows[0])
    assert [row["overrides"] for row in flat] == [" ".join(row["overrides"]) for row in rows]
    return rows


def written(sweep):
    return {path.parent.name: path.stat().st_mtime_ns for path in sweep.glob("?/metrics.json")}


def fail_and_run_again(capfd, sweep, *launcher):
    """Three jobs of which the second fails, then the same with that one mended."""
    where = (f"hydra.sweep.dir={sweep}", *launcher)
    with pytest.raises(SystemExit) as caught:
        main([*SWEEP, "seed=0,x,2", *where])
    said = capfd.readouterr()
    assert caught.value.code == 2
    assert said.err.splitlines() == [
        "micronet: 1 of 3 jobs failed:",
        "  job 1 (seed=x): seed='x': must be a whole number",
    ]
    assert f"sweep: {sweep}; summary: {sweep / 'summary.csv'}" in said.out
    rows = summary_of(sweep)
    assert [row["status"] for row in rows] == ["completed", "failed", "completed"]
    assert [row["directory"] for row in rows] == ["0", "1", "2"]
    assert rows[1]["reason"] == "seed='x': must be a whole number"
    assert rows[1]["top1"] is None
    for column in ("top1", "split", "val_top1"):
        assert rows[2][column] == metrics_of(sweep / "2").get(column)
    before = written(sweep)

    main([*SWEEP, "seed=0,1,2", *where, "resume=true"])
    after = written(sweep)
    assert {job for job in after if after[job] != before.get(job)} == {"1"}
    assert [row["status"] for row in summary_of(sweep)] == ["completed"] * 3
    assert "resume=True" not in summary_of(sweep)[0]["overrides"]


def test_failed_job_is_reported_and_a_second_go_runs_only_it(capfd, tmp_path):
    fail_and_run_again(capfd, tmp_path / "sweep")


@pytest.mark.parametrize(
    ("overrides", "params", "jobs"),
    [
        pytest.param(["seed=0"], None, 1, id="one"),
        pytest.param(["seed=0,1,2", "optim.lr=0.1,0.2", "model=resnet8"], None, 6, id="every combination"),
        pytest.param(["seed=range(0,4)"], {"optim.lr": "0.1,0.2"}, 8, id="range, and the sweeper's own"),
    ],
)
def test_jobs_are_counted_before_they_start(overrides, params, jobs):
    config = OmegaConf.create({"hydra": {"sweeper": {"params": params}, "overrides": {"task": overrides}}})
    assert number_of_jobs(config) == jobs


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers_agree(capfd, tmp_path, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.split('_')[0]}_launcher")
    processes = ("hydra.launcher.n_jobs=2",) if launcher == "joblib" else ()
    fail_and_run_again(capfd, tmp_path / "sweep", f"hydra/launcher={launcher}", *processes)


def test_failure_does_not_stop_later_batches(micronet, tmp_path):
    with pytest.raises(SystemExit):
        micronet("-m", "stage=score", *TINY, "seed=x,1", "hydra.sweeper.max_batch_size=1", directory=tmp_path)
    assert [row["status"] for row in summary_of(tmp_path)] == ["failed", "completed"]


def test_unexpected_error_is_kept_with_its_traceback(micronet, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("micronet_cli.stages.score.score_network", lambda *_: 1 // 0)
    with pytest.raises(SystemExit) as caught:
        micronet("-m", "stage=score", *TINY, "seed=0,1", directory=tmp_path)
    said = capsys.readouterr()
    assert caught.value.code == 1
    assert "job 0 (seed=0): ZeroDivisionError: " in said.err
    assert "Traceback" not in said.err + said.out
    assert "score_network" in (tmp_path / "1" / "traceback.txt").read_text()


def test_used_directory_counts_the_jobs_of_the_sweep_that_is_run(micronet, tmp_path):
    def seeds():
        return [row["overrides"][-1] for row in summary_of(tmp_path)]

    micronet("-m", "stage=score", *TINY, "seed=0,1,2", directory=tmp_path)
    micronet("-m", "stage=score", *TINY, "seed=4", directory=tmp_path)
    assert seeds() == ["seed=4"]
    with pytest.raises(SystemExit):
        micronet("-m", "stage=score,prunne", *TINY, directory=tmp_path)
    assert seeds() == ["seed=4"]
    before = written(tmp_path)
    micronet("-m", "stage=score", *TINY, "seed=4,5", "resume=true", directory=tmp_path)
    assert seeds() == ["seed=4", "seed=5", "seed=2"]
    assert written(tmp_path)["0"] == before["0"]
    assert [metrics_of(tmp_path / job)["seed"] for job in ("0/previous", "1/previous", "1")] == [0, 1, 5]


def test_a_job_that_the_queue_starts_again_goes_on(tmp_path):
    sweep = Sweep()
    sweep.identity, sweep.directory, sweep.resume = "one", tmp_path, False
    told = []

    def run(work):
        return sweep.run(Outcome(0, [], str(tmp_path / "0")), lambda again: told.append(again) or work())

    def taken_away():
        raise SystemExit  # as submitit does when Slurm wants the machine back

    with pytest.raises(SystemExit):
        run(taken_away)
    assert json.loads((tmp_path / ".jobs" / "0.json").read_text())["status"] == "running"
    assert run(lambda: {"top1": 50.0}) == 50.0
    assert run(lambda: {"top1": 50.0, "val_top1": 40.0}) == 40.0  # what a sweeper may choose by
    assert told == [False, True, True]


def test_interrupt_of_a_job_is_the_sweep_s(tmp_path):
    sweep = Sweep()
    sweep.identity, sweep.directory, sweep.resume = "one", tmp_path, False

    def stop(_):
        raise Interrupted("stopped at step 3 of 9; go on")

    with pytest.raises(KeyboardInterrupt):
        sweep.run(Outcome(0, [], str(tmp_path / "0")), stop)
    (outcome,) = sweep.summarise()
    assert (outcome.status, outcome.reason) == ("interrupted", "stopped at step 3 of 9")


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(tmp_path):
    arguments = [*SWEEP[:-1], "trainer.max_steps=1,100000", "trainer.epochs=100000", f"hydra.sweep.dir={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "micronet_cli.command.cli", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        until = time.monotonic() + 300
        while not (tmp_path / "1" / "history.jsonl").is_file() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=300)[1].decode()
    finally:
        process.kill()
    assert process.returncode == 130
    assert said == (f"micronet: interrupted; go on with the same command, resume=true and hydra.sweep.dir={tmp_path}\n")
    assert [row["status"] for row in summary_of(tmp_path)] == ["completed", "interrupted"]
    assert summary_of(tmp_path)[1]["reason"].startswith("stopped at step")


def test_exit_code_is_2_only_where_all_mistakes_are_the_user_s(tmp_path):
    def job(number, error):
        outcome = Outcome(number, [f"seed={number}"], str(number))
        outcome.attempt(error, tmp_path)
        return outcome

    def mistaken():
        raise UserError("a: wrong\nb: wrong too")

    good, user, other = job(0, dict), job(1, mistaken), job(2, lambda: {}["key"])
    raise_for_failed([good], "job")
    with pytest.raises(JobsFailed, match=r"^job 1 \(seed=1\): a: wrong; b: wrong too$") as caught:
        raise_for_failed([good, user], "job")
    assert caught.value.exit_code == 2
    with pytest.raises(JobsFailed, match="KeyError: 'key'") as caught:
        raise_for_failed([good, user, other], "job")
    assert (caught.value.heading, caught.value.exit_code) == ("2 of 3 jobs failed:", 1)
