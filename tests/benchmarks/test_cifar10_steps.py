"""Guards the steps of a CIFAR-10 row: what is held back, what begins where, which figures a row has."""

import json
import tarfile

import cifar10_steps
import pytest
from cifar10 import COLUMNS
from cifar10_recipes import RECIPES
from cifar10_steps import Files, Steps, hold_back
from image_split import image_names

FILES = Files(*(f"/files/{name}" for name in ("train.tar", "test.tar", "student", "teacher")))
METRICS = {
    "top1": 87.0, "wall_seconds": 60.0, "weight_sparsity": 0.8, "weight_bits_mean": 3.0, "storage_bytes": 50_000.0,
    "math_ops": 3e6, "micronet_score": 0.0006, "file_bytes": 60_000, "latency_ms": 1.0, "dense_latency_ms": 2.0,
}  # fmt: skip


def test_held_back_images_are_no_training_images(tmp_path):
    train = tmp_path / "train.tar"
    image = tmp_path / "image.jpg"
    image.write_bytes(b"pixels")
    with tarfile.open(train, "w") as tar:
        for name in ("cat/0.jpg", "cat/1.jpg", "cat/2.jpg", "dog/0.jpg", "dog/1.jpg", "dog/2.jpg"):
            tar.add(image, name)
    fit, judge = hold_back(train, 1, tmp_path / "parts")
    kept, judged = image_names(fit), image_names(judge)
    assert sorted(kept + judged) == image_names(train)
    assert [name.split("/")[0] for name in judged] == ["cat", "dog"]


@pytest.fixture
def commands(monkeypatch):
    """Of a row whose stages all give METRICS."""
    found = {}

    def run(directory, *arguments):
        found[directory.name] = arguments
        directory.mkdir(parents=True)
        engine = {"onnxruntime all": {"accuracy": {"top1": 86.9}}}
        (directory / "export.json").write_text(json.dumps({"engines": {"model.onnx": engine}}))
        return METRICS

    monkeypatch.setattr(cifar10_steps, "micronet", run)
    return found


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_row_has_all_columns_and_each_stage_begins_from_the_one_before(recipe, commands, tmp_path):
    figures = Steps(FILES, tmp_path, seed=3, epochs=5, extra=["trainer.max_steps=2"]).figures(recipe)
    assert set(figures) == {name for name, _ in COLUMNS.values()}
    assert figures["minutes"] == len(recipe.stages)
    start = "model.weights=/files/student"
    for stage in recipe.stages:
        arguments = commands[stage.name]
        assert {start, "seed=3", "trainer.epochs=5", "trainer.max_steps=2"} <= set(arguments)
        start = f"init_from={tmp_path / stage.name}"
    for step in ("score", "export", "latency"):
        assert start in commands[step]
    assert f"init_from={tmp_path / 'export' / 'model.mnet'}" in commands["eval"]
