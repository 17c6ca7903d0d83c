"""Lineage: the run that a run began from is found, moved or not, and compared on the same images."""

from pathlib import Path

import pytest

from micronet_cli.explore.lineage import accuracies, ancestors, trace_lineage


def a_run(stage, top1=None, split="test", init_from=None, **metrics):
    figures = {"stage": stage, "status": "completed", "split": split} | metrics
    if top1 is not None:
        figures["top1"] = top1
    return {"metrics": figures, "config": {"init_from": init_from}}


def traced(**runs):
    """Name -> run, each in a directory of its name below /outputs."""
    directories = [Path("/outputs") / name.replace("__", "/") for name in runs]
    trace_lineage(list(runs.values()), directories)
    return runs


STARTS = {
    "directory": "/outputs/dense",
    "checkpoint": "/outputs/dense/checkpoints/best.safetensors",
    "packed": "/outputs/dense/model.mnet",
    "moved since": "/elsewhere/outputs/dense",
    "relative, from where the command was typed": "outputs/dense",
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS.keys())
def test_parent_is_the_run_that_was_named(start):
    found = traced(dense=a_run("train", 95.0), pruned=a_run("prune", 94.0, init_from=start))
    assert (found["dense"]["parent"], found["pruned"]["parent"]) == (None, 0)


def test_a_start_that_two_runs_could_be_is_nobody_s():
    found = traced(a__1=a_run("train"), b__1=a_run("train"), pruned=a_run("prune", init_from="/elsewhere/1"))
    assert found["pruned"]["parent"] is None


def test_changes_are_against_the_nearest_ancestor_on_the_same_images():
    """A trial is measured on val, and evaluated on test once it is chosen."""
    found = traced(
        dense=a_run("train", 95.0, val_top1=96.0, storage_bytes=400),
        trial=a_run("prune", 94.5, split="val", init_from="/outputs/dense", storage_bytes=100),
        chosen=a_run("eval", 93.0, init_from="/outputs/trial", storage_bytes=100),
    )
    assert (found["trial"]["against"], found["trial"]["top1_change"]) == (0, -1.5)
    assert (found["chosen"]["against"], found["chosen"]["top1_change"]) == (0, -2.0)
    assert found["chosen"]["times_smaller"] == 4
    assert found["dense"]["top1_change"] is None
    # It is the trial's network, so what that reached on val holds of it too.
    assert accuracies(found["chosen"]) == {"test": 93.0, "val": 94.5}


def test_no_change_against_other_images():
    runs = {
        "dense": a_run("train", 95.0, images=10000),
        "other": a_run("train", 90.0, init_from="/outputs/dense", images=359),
    }
    assert traced(**runs)["other"]["against"] is None
    runs["dense"]["metrics"]["images"] = 359
    assert traced(**runs)["other"]["top1_change"] == -5.0
    runs["dense"]["config"]["data._target_"] = "a.Cifar10"
    assert traced(**runs)["other"]["against"] is None


def test_what_an_export_found_out_stands_beside_the_network():
    found = traced(
        quantised=a_run("qat", 94.0, storage_bytes=100),
        export=a_run("export", init_from="/outputs/quantised", storage_bytes=99, file_bytes=90),
    )
    assert found["quantised"]["metrics"]["file_bytes"] == 90
    assert found["quantised"]["metrics"]["storage_bytes"] == 100


def test_a_pipeline_is_compared_with_its_first_step():
    found = traced(
        whole=a_run("pipeline", 93.0, storage_bytes=50),
        whole__1_train=a_run("train", 95.0, storage_bytes=400),
        whole__2_prune=a_run("prune", 93.0, init_from="/outputs/whole/1_train", storage_bytes=50),
    )
    assert (found["whole"]["against"], found["whole"]["times_smaller"]) == (1, 8)


def test_runs_that_name_each_other_come_once():
    found = traced(a=a_run("prune", init_from="/outputs/b"), b=a_run("prune", init_from="/outputs/a"))
    assert list(ancestors(found["a"], list(found.values()))) == [1, 0]


def test_a_link_to_a_run_is_that_run(tmp_path):
    (tmp_path / "dense").mkdir()
    (tmp_path / "latest").symlink_to(tmp_path / "dense")
    runs = [a_run("train", 95.0), a_run("train", 95.0), a_run("prune", 94.0, init_from=f"{tmp_path}/latest")]
    trace_lineage(runs, [tmp_path / "dense", tmp_path / "latest", tmp_path / "pruned"])
    assert runs[2]["top1_change"] == -1
