"""Guards ``stage=eval``: every image once, the same figures again, what explains them, and data that is not there."""

import csv

import pytest

from tests.conftest import TINY, metrics_of


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    from micronet_cli.command.cli import main

    run = tmp_path_factory.mktemp("eval") / "run"
    main(["stage=eval", *TINY, f"hydra.run.dir={run}"])
    return run


def test_checkpoint_of_an_evaluation_gives_the_same_figures(micronet, evaluated):
    again = metrics_of(micronet("stage=eval", f"init_from={evaluated}"))
    first = metrics_of(evaluated)
    for key in ("top1", "images", "split", "corrupt", "micronet_score"):
        assert again[key] == first[key]
    assert (first["split"], first["corrupt"]) == ("test", 0)
    assert (evaluated / "checkpoints" / "best.safetensors").is_file()


def test_another_split_is_evaluated_where_it_is_asked_for(micronet, evaluated):
    metrics = metrics_of(micronet("stage=eval", f"init_from={evaluated}", "eval.split=val"))
    assert metrics["split"] == "val"
    assert metrics["images"] != metrics_of(evaluated)["images"]


def test_split_without_data_is_a_mistake(mistake, image_folder):
    said = mistake("stage=eval", "model=resnet8", "data=imagefolder", f"data.train={image_folder}")
    assert said == "micronet: data.test: missing; give data.test=<directory or tar with a folder a class>\n"


def rows_of(run, name):
    with (run / name).open() as file:
        return list(csv.DictReader(file))


def test_explanation_agrees_with_the_figures(evaluated):
    metrics = metrics_of(evaluated)
    predictions = rows_of(evaluated, "predictions.csv")
    right = sum(row["label"] == row["prediction"] for row in predictions)
    classes = rows_of(evaluated, "classes.csv")
    assert len(predictions) == metrics["images"]
    assert metrics["top1"] == pytest.approx(100 * right / metrics["images"])
    assert sum(int(row["correct"]) for row in classes) == right
    assert [row["class"] for row in classes] == [str(digit) for digit in range(10)]
    assert min(float(row["top1"]) for row in classes) == metrics["worst_class_top1"]
    assert 0 <= metrics["calibration_error"] <= 100
    assert (evaluated / "mistakes.png").is_file()


def test_against_itself_nothing_has_changed(micronet, evaluated):
    run = micronet("stage=eval", f"init_from={evaluated}", f"eval.against={evaluated}", "eval.pictures=0")
    metrics = metrics_of(run)
    assert metrics["against"] == str(evaluated)
    assert metrics["against_top1"] == metrics["top1"]
    assert (metrics["broken_images"], metrics["fixed_images"]) == (0, 0)
    assert not (run / "mistakes.png").exists()


def test_against_another_network_the_difference_is_broken_and_fixed(micronet, evaluated):
    run = micronet("stage=eval", *TINY, "seed=1", f"eval.against={evaluated}")
    metrics = metrics_of(run)
    changes = [row["change"] for row in rows_of(run, "changes.csv")]
    gained = metrics["fixed_images"] - metrics["broken_images"]
    assert changes.count("broken") == metrics["broken_images"] > 0
    assert changes.count("fixed") == metrics["fixed_images"] > 0
    assert metrics["top1"] - metrics["against_top1"] == pytest.approx(100 * gained / metrics["images"])


def test_images_that_do_not_decode_are_left_out_of_the_predictions(micronet, image_folder):
    (image_folder / "blue" / "4.jpg").write_bytes(b"no image")
    data = ("data=imagefolder", f"data.test={image_folder}", "data.workers=0")
    for cache in ("data.cache_mb=0", "data.cache_mb=100"):
        run = micronet("stage=eval", "model=resnet8", *data, cache)
        images = [row["image"] for row in rows_of(run, "predictions.csv")]
        assert len(images) == 23
        assert "blue/4.jpg" not in images


def test_run_with_other_classes_is_no_run_to_compare_with(mistake, evaluated, image_folder):
    data = ("data=imagefolder", f"data.test={image_folder}")
    said = mistake("stage=eval", "model=resnet8", *data, f"eval.against={evaluated}")
    assert f"eval.against='{evaluated}': its 10 classes are not the 2 of the network" in said


def test_run_to_compare_with_must_be_there(mistake):
    said = mistake("stage=eval", *TINY, "eval.against=/nowhere")
    assert said == "micronet: eval.against='/nowhere': no such file or directory\n"
