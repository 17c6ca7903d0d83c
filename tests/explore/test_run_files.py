"""What is read of one run's directory, and what is noted where a file is wrong."""

import json

import pytest

from micronet_cli.explore.run_files import POINTS, number, read_run


def a_run(directory, **metrics):
    directory.mkdir(parents=True)
    (directory / "metrics.json").write_text(json.dumps({"stage": "prune", "status": "completed"} | metrics))
    return directory


@pytest.fixture
def whole(tmp_path):
    """A run with every file, its history cut short by a crash."""
    run = a_run(tmp_path / "run", versions={"torch": "2"}, top1=90.0)
    (run / "config.yaml").write_text("optim: {lr: 0.1, betas: [1, 2]}\ndata: {_target_: a.Digits}\nquantize: {}\n")
    lines = [{"kind": "step", "step": i, "epoch": 0, "loss": 1 / i, "top1": None} for i in range(1, 1001)]
    lines += [{"kind": "epoch", "step": 1000, "epoch": 0, "val_top1": 90.0}]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (run / "history.jsonl").write_text(text + '{"kind": "ste')
    (run / "layers.csv").write_text(
        "layer,storage_params,math_ops,bits,sparsity\nconv1,10.0,100.0,4x32,0.5\nrelu,0.0,5.0,32,\n"
    )
    return run


def test_every_file_is_read(whole):
    problems = {}
    run = read_run(whole, problems)
    assert problems == {}
    assert run["metrics"] == {"stage": "prune", "status": "completed", "top1": 90.0}
    assert run["config"] == {"optim.lr": 0.1, "optim.betas": "[1, 2]", "data._target_": "a.Digits", "quantize": None}
    assert run["layers"] == [["conv1", 10.0, 100.0, 0.5, 4, 32], ["relu", 0.0, 5.0, None, None, None]]


def test_sizes_of_onnx_files_are_figures_of_an_export(tmp_path):
    run = a_run(tmp_path / "run", stage="export", file_bytes=10)
    onnx = {"model.onnx": {"bytes": 30, "max_abs_logit": 1.0}, "model.int8.onnx": {"bytes": 20}}
    (run / "export.json").write_text(json.dumps({"file_bytes": 10, "onnx": onnx}))
    metrics = read_run(run, {})["metrics"]
    assert (metrics["file_bytes"], metrics["onnx_bytes"], metrics["int8_bytes"]) == (10, 30, 20)


def test_sensitivities_are_read_as_a_row_a_layer(tmp_path):
    run = a_run(tmp_path / "run", stage="sensitivity")
    (run / "sensitivity.csv").write_text("layer,kind,value,divergence\na,weight_bits,2.0,0.125\na,sparsity,0.5,0.5\n")
    assert read_run(run, {})["sensitivity"] == [{"layer": "a", "w2": "0.12", "0.5 zeros": "0.5"}]


LEFT = {"nothing": (None, False), "layers": ("layers.csv", True), "history": ("history.jsonl", True)}


@pytest.mark.parametrize(("name", "began"), LEFT.values(), ids=LEFT.keys())
def test_a_run_that_failed_and_left_nothing_had_not_begun(tmp_path, name, began):
    run = a_run(tmp_path / "run", status="failed")
    if name == "layers.csv":
        (run / name).write_text("layer,storage_params\nconv,1\n")
    if name == "history.jsonl":
        (run / name).write_text('{"kind": "step", "step": 1, "loss": 2.0}\n')
    assert read_run(run, {})["began"] is began


def test_curves_are_thinned_from_end_to_end(whole):
    history = read_run(whole, {})["history"]
    assert history.keys() == {"epoch val_top1", "step loss"}
    curve = history["step loss"]
    assert len(curve["step"]) == len(curve["value"]) <= POINTS + 1
    assert (curve["step"][0], curve["step"][-1]) == (1, 1000)


def test_files_that_are_wrong_are_noted_and_left_out(whole):
    (whole / "config.yaml").write_text("a: [1")
    (whole / "layers.csv").write_text("nothing\n1\n")
    problems = {}
    run = read_run(whole, problems)
    assert problems.keys() == {str(whole / "config.yaml"), str(whole / "layers.csv")}
    assert all(problems.values())
    assert (run["config"], run["layers"]) == ({}, [])


MISTAKES = {"cut short": '{"top1": 9', "a list": "[1]", "overrides": '{"overrides": 5}'}


@pytest.mark.parametrize("text", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_run_with_wrong_metrics_is_left_out(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    problems = {}
    assert read_run(tmp_path, problems) is None
    assert list(problems) == [str(tmp_path / "metrics.json")]


def test_renamed_paths_make_no_difference_between_versions(tmp_path):
    """One run names its pruner as version 0.1.0 did, one as today; a third has overrides alone."""
    before, today = "micronet_cli.compression.pruner.Pruner", "micronet_cli.compression.pruning.pruner.Pruner"
    old, new = a_run(tmp_path / "old"), a_run(tmp_path / "new")
    (old / "config.yaml").write_text(f"prune: {{_target_: {before}}}\n")
    (new / "config.yaml").write_text(f"prune: {{_target_: {today}}}\n")
    typed = a_run(tmp_path / "typed", overrides=[f"prune._target_={before}"])
    for directory in (old, new, typed):
        assert read_run(directory, {})["config"] == {"prune._target_": today}


def test_overrides_stand_in_for_a_missing_config(tmp_path):
    run = read_run(a_run(tmp_path / "run", overrides=["optim.lr=0.1", "seed=1"]), {})
    assert run["config"] == {"optim.lr": "0.1", "seed": "1"}


def test_number_takes_finite_numbers_alone():
    assert (number("0.5"), number(3)) == (0.5, 3)
    for other in (True, None, "x", float("nan"), 10**400):
        assert number(other) is None
