"""Guards what a run says of its mistakes: each file's rows by hand, and pictures where there are any."""

import csv

import pytest
import torch
from PIL import Image

from micronet_cli.runs.directory import Run
from micronet_cli.stages.explain import Explanation
from micronet_cli.training.predictions import Predictions

CLASSES = ["ant", "bee", "cow"]


class Loader:
    """Four images; those of a stream cannot be had again."""

    def __init__(self, stream=False):
        self.stream = stream

    def name(self, index):
        return f"{index}.jpg"

    def picture(self, index):
        return None if self.stream else Image.new("RGB", (8, 8))


@pytest.fixture
def explanation(tmp_path):
    return Explanation(Run(tmp_path), Loader(), CLASSES, pictures=1)


def predicted(*classes, confidence=(0.9, 0.8, 0.6, 0.7)):
    labels = torch.tensor([0, 0, 1, 1])
    return Predictions(torch.arange(4), labels, torch.tensor(classes), torch.tensor(confidence))


def rows_of(explanation, name):
    with (explanation.run.directory / name).open() as file:
        return list(csv.DictReader(file))


def test_classes_say_what_each_is_mistaken_for(explanation):
    figures = explanation.explain(predicted(0, 2, 1, 1))
    ant, bee, cow = rows_of(explanation, "classes.csv")
    assert ant == {
        "class": "ant", "images": "2", "correct": "1", "top1": "50.0", "predicted": "1",
        "confused_with": "cow", "confused_images": "1",
    }  # fmt: skip
    assert (bee["top1"], bee["confused_with"], bee["confused_images"]) == ("100.0", "", "0")
    assert (cow["images"], cow["top1"], cow["predicted"]) == ("0", "", "1")
    assert (figures["worst_class"], figures["worst_class_top1"]) == ("ant", 50.0)


def test_confusion_has_a_row_and_a_column_a_class_that_is_seen(explanation):
    explanation.explain(predicted(0, 2, 1, 1))
    ant, bee, cow = rows_of(explanation, "confusion.csv")
    assert ant == {"true/predicted": "ant", "ant": "1", "bee": "0", "cow": "1"}
    assert (bee["bee"], cow["cow"]) == ("2", "0")


def test_calibration_has_its_bins_and_their_error(explanation):
    figures = explanation.explain(predicted(0, 2, 1, 1))
    bins = rows_of(explanation, "calibration.csv")
    assert len(bins) == 15
    assert bins[0] == {"low": "0.0", "high": "6.6667", "images": "0", "confidence": "", "top1": ""}
    assert bins[13] == {"low": "86.6667", "high": "93.3333", "images": "1", "confidence": "90.0", "top1": "100.0"}
    # Every image has a bin of its own: |1 - 0.9|, |0 - 0.8|, |1 - 0.6| and |1 - 0.7|, a quarter each.
    assert figures["calibration_error"] == pytest.approx(100 * (0.1 + 0.8 + 0.4 + 0.3) / 4, abs=1e-4)


def test_mistakes_are_the_most_confident_with_their_pictures(explanation):
    explanation.explain(predicted(0, 2, 0, 1))
    assert [row["image"] for row in rows_of(explanation, "predictions.csv")] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    (worst,) = rows_of(explanation, "mistakes.csv")
    assert worst == {"image": "1.jpg", "label": "ant", "prediction": "cow", "confidence": "80.0"}
    assert (explanation.run.directory / "mistakes.png").read_bytes().startswith(b"\x89PNG")


def test_network_without_a_mistake_has_no_pictures_of_them(explanation):
    explanation.explain(predicted(0, 0, 1, 1))
    text = (explanation.run.directory / "mistakes.csv").read_text()
    assert text == "image,label,prediction,confidence\n"
    assert not (explanation.run.directory / "mistakes.png").exists()


def test_stream_has_rows_and_no_pictures(tmp_path):
    explanation = Explanation(Run(tmp_path), Loader(stream=True), CLASSES, pictures=9)
    explanation.explain(predicted(2, 2, 2, 2))
    assert len(rows_of(explanation, "mistakes.csv")) == 4
    assert not (tmp_path / "mistakes.png").exists()


def test_changes_are_broken_then_fixed(explanation):
    before = predicted(0, 0, 0, 0)
    after = predicted(0, 1, 1, 2, confidence=(0.5, 0.6, 0.7, 0.8))
    assert explanation.compare(before, after) == {"broken_images": 1, "fixed_images": 1}
    broken, fixed = rows_of(explanation, "changes.csv")
    assert broken == {
        "image": "1.jpg", "label": "ant", "before": "ant", "after": "bee", "change": "broken",
        "confidence_before": "80.0", "confidence_after": "60.0",
    }  # fmt: skip
    assert (fixed["image"], fixed["change"]) == ("2.jpg", "fixed")
    assert (explanation.run.directory / "broken.png").is_file()


def test_nothing_changed_leaves_a_table_without_rows(explanation):
    same = predicted(0, 0, 0, 0)
    assert explanation.compare(same, same) == {"broken_images": 0, "fixed_images": 0}
    assert rows_of(explanation, "changes.csv") == []
    assert not (explanation.run.directory / "broken.png").exists()
