"""Guards ``+experiment=auto``: from a dense network to a budget, what it says of it, and what it refuses."""

import csv
import shutil
import subprocess
import sys
import time

import pytest

from micronet_cli.checkpoint import load
from tests.conftest import metrics_of

pytest.importorskip("plotly")
pytest.importorskip("onnxruntime", reason="needs the extra export")
AUTO = ("+experiment=auto",)
QUICK = (
    *AUTO,
    "trainer.max_steps=4",
    "export.onnx=false",
    "export.int8=false",
    "sensitivity.method=estimate",
    "sensitivity.images=32",
    "sensitivity.sparsities=[0.5,0.875]",
    "sensitivity.weight_bits=[3,8]",
    "sensitivity.activation_bits=[4,8]",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, trained):
    """A run to a fifth of the dense network's score."""
    from micronet_cli.command.cli import main

    run = tmp_path_factory.mktemp("auto") / "run"
    target = 0.2 * metrics_of(trained)["micronet_score"]
    main([*QUICK, f"init_from={trained}", f"budget.score={target}", f"hydra.run.dir={run}"])
    return run


@pytest.fixture
def spoilt(finished, tmp_path):
    """The run, to be changed; it is as it was afterwards."""
    backup = shutil.copytree(finished, tmp_path / "backup")
    yield finished
    shutil.rmtree(finished)
    shutil.move(backup, finished)


def arguments_of(run):
    return [argument.replace("experiment", "+experiment") for argument in metrics_of(run)["overrides"]]


def test_the_steps_reach_the_budget(finished, trained):
    metrics = metrics_of(finished)
    target = metrics["target"]["score"]
    assert 0.9 * target < metrics["micronet_score"] <= target
    assert metrics["reached"] == {"score": metrics["micronet_score"]}
    assert metrics["budget_kept"] is True
    assert metrics["top1_drop"] == pytest.approx(metrics_of(trained)["top1"] - metrics["top1"])
    names = [path.name for path in sorted(finished.iterdir()) if path.name[0].isdigit()]
    assert names == ["1_train", "2_sensitivity", "3_allocate", "4_prune", "5_qat", "6_export", "7_report"]


def test_the_final_network_is_the_quantised_one_and_not_the_report(finished):
    assert metrics_of(finished)["top1"] == metrics_of(finished / "5_qat")["top1"]
    assert (finished / "layers.csv").read_text() == (finished / "5_qat" / "layers.csv").read_text()
    assert load(str(finished)).compressors == load(str(finished / "5_qat")).compressors
    with (finished / "summary.csv").open() as file:
        assert [row["network"] for row in csv.DictReader(file)] == ["dense", "pruned", "quantised"]


def test_the_budget_is_chosen_on_val(finished):
    assert metrics_of(finished / "2_sensitivity")["split"] == "val"
    assert metrics_of(finished / "3_allocate")["chosen_by"] == "val"


def test_networks_take_the_allocated_rules(finished):
    for step, column in (("4_prune", "target_sparsity"), ("5_qat", "weight_bits")):
        found = []
        for where in ("3_allocate", step):
            with (finished / where / "layers.csv").open() as file:
                found.append({row["layer"]: row.get(column, "") for row in csv.DictReader(file)})
        allocated, trained = found
        assert trained == allocated
        assert any(allocated.values())


def test_the_end_tells_asked_reached_lost_and_files(finished):
    log = (finished / "micronet.log").read_text()
    assert "step 4 of 7, prune: begins after" in log
    _, _, end = log.partition("asked for")
    head, cells, *_ = end.splitlines()
    assert head.endswith("points lost")
    assert cells.startswith("score")
    assert "yes" in cells
    for name in ("checkpoints/best.safetensors", "6_export/model.mnet", "7_report/report.html"):
        assert name in end


def test_the_report_is_about_the_steps(finished):
    assert metrics_of(finished / "7_report")["runs"] == 6


def test_resume_goes_on_at_the_step_that_was_killed(micronet, spoilt):
    """``kill -9`` leaves a step without its metrics.json, and no step after it."""
    before = metrics_of(spoilt)
    arguments = arguments_of(spoilt)
    kept = (spoilt / "3_allocate" / "metrics.json").stat().st_mtime_ns
    for later in ("5_qat", "6_export", "7_report"):
        shutil.rmtree(spoilt / later)
    for where in (spoilt, spoilt / "4_prune"):
        (where / "metrics.json").unlink()
    micronet(*arguments, "resume=true", directory=spoilt)
    after = metrics_of(spoilt)
    assert (spoilt / "3_allocate" / "metrics.json").stat().st_mtime_ns == kept
    for key in ("top1", "micronet_score", "budget_kept"):
        assert after[key] == before[key]


def test_resume_refuses_another_budget_by_name(mistake, spoilt):
    arguments = [argument for argument in arguments_of(spoilt) if not argument.startswith("budget.")]
    said = mistake(*arguments, "budget.score=0.003", "resume=true", directory=spoilt)
    assert "was done with another budget.score; use its own config, or leave resume out" in said
    said = mistake(*arguments, "budget.math_ops=300000", "resume=true", directory=spoilt)
    assert "was done with another budget.score" in said


@pytest.mark.slow
def test_a_budget_that_quantisation_reaches_alone_leaves_pruning_out(micronet, trained):
    dense = metrics_of(trained)["storage_bytes"]
    arguments = (*QUICK, f"init_from={trained}", "sensitivity.sparsities=[0.95]", "stage.steps.report=null")
    run = micronet(*arguments, f"budget.storage_bytes={0.9 * dense}")
    assert metrics_of(run)["budget_kept"]
    assert not (run / "4_prune").exists()
    assert "step 4 of 6, prune: left out, no layer got a rule of its kind" in (run / "micronet.log").read_text()
    assert metrics_of(run / "5_qat")["weight_sparsity"] < 0.1


def test_a_missed_budget_is_said(micronet, trained, finished):
    target = metrics_of(finished)["target"]["score"]
    table = finished / "2_sensitivity"
    arguments = (*QUICK, f"init_from={trained}", f"budget.score={target}", f"budget.table={table}")
    run = micronet(
        *arguments, "stage.steps.sensitivity=null", "stage.steps.qat=null", "stage.steps.export=null",
        "stage.steps.report=null",
    )  # fmt: skip
    assert metrics_of(run)["budget_kept"] is False
    assert metrics_of(run)["status"] == "completed"
    assert f"budget.score={target:g} is missed" in (run / "micronet.log").read_text()


@pytest.mark.slow
def test_killed_in_a_training_it_ends_as_if_it_had_not_been(micronet, trained, tmp_path):
    """``kill -9`` in the middle of pruning."""
    target = 0.2 * metrics_of(trained)["micronet_score"]
    quick = [argument for argument in QUICK if not argument.startswith("trainer.")]
    arguments = (
        *quick, f"init_from={trained}", f"budget.score={target}", "trainer.epochs=2", "trainer.log_interval_steps=5",
        "trainer.checkpoint_minutes=0",
    )  # fmt: skip
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "micronet_cli.command.cli", *arguments, f"hydra.run.dir={killed}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    history = killed / "4_prune" / "history.jsonl"
    deadline = time.monotonic() + 600
    while not (history.is_file() and history.read_text().count("\n") >= 3):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert not (killed / "4_prune" / "metrics.json").exists()
    micronet(*arguments, "resume=true", directory=killed)
    whole = micronet(*arguments)
    for key in ("top1", "reached", "budget_kept", "weight_sparsity"):
        assert metrics_of(killed)[key] == metrics_of(whole)[key]
    assert "resumed at step" in (killed / "micronet.log").read_text()


@pytest.mark.slow
def test_the_whole_as_it_is_packaged(micronet, trained):
    target = 0.2 * metrics_of(trained)["micronet_score"]
    run = micronet(*AUTO, f"init_from={trained}", f"budget.score={target}", "trainer.epochs=2")
    metrics = metrics_of(run)
    assert metrics["budget_kept"] is True
    assert metrics["top1_drop"] < 15
    for name in ("model.mnet", "model.onnx"):
        assert (run / "6_export" / name).is_file()
    assert not (run / "6_export" / "model.int8.onnx").exists()  # it would be another network than the one of few bits
    exported = metrics_of(run / "6_export")
    assert exported["exported_top1"] == pytest.approx(metrics["top1"], abs=1)


MISTAKES = {
    "none": ((), "budget.score=null: needs a target: one of budget.score, budget.storage_bytes, budget.math_ops, "),
    "two": (("budget.score=0.001", "budget.math_ops=9"), "budget.math_ops=9: budget.score is given too; take one of"),
    "a typo": (("budget.scor=0.001",), "budget.scor: unknown key; did you mean score?"),
    "no number": (("budget.score=few",), "budget.score='few': must be a number or null"),
    "too little": (("budget.score=1e-9",), "budget.score=1e-09: must be at least 0.0"),
    "too much": (("budget.score=5",), "budget.score=5: the network has 0.00"),
    "too few bytes": (("budget.storage_bytes=9",), "budget.storage_bytes=9: must be at least "),
    "no table": (("budget.score=0.001", "budget.table=/nowhere"), "budget.table=/nowhere: no sensitivity.csv there"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake_is_answered_before_the_work_begins(mistake, trained, tmp_path, case):
    arguments, answer = MISTAKES[case]
    said = mistake(*AUTO, f"init_from={trained}", *arguments, directory=tmp_path / "run")
    assert answer in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_least_that_is_named_is_let_in(mistake, micronet, trained):
    start = (*QUICK, f"init_from={trained}", "stage.steps.export=null", "stage.steps.report=null")
    said = mistake(*start, "budget.storage_bytes=9")
    least = said.split("must be at least ")[1].split()[0]
    assert metrics_of(micronet(*start, f"budget.storage_bytes={least}"))["budget_kept"]


def test_an_untrained_network_is_judged_before_it_is_trained(mistake, tmp_path):
    arguments = (*AUTO, "model=resnet8", "data=digits", "budget.score=1e-9")
    assert "must be at least" in mistake(*arguments, directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_package_that_a_late_step_needs_is_missed_at_once(mistake, trained, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    said = mistake(*AUTO, f"init_from={trained}", "budget.score=0.001")
    assert "export.onnx=true: onnx is not installed" in said
    assert "stage=report: plotly is not installed" in said
