"""Guards which class is said to be taken for which: counts by hand, of the classes alone that are seen."""

import pytest
import torch

from micronet_cli.stages.confusions import Confusions, percent
from micronet_cli.training.predictions import Predictions

CLASSES = [f"class {number}" for number in range(1000)]


@pytest.fixture
def confusions():
    """Class 7 is right once and taken twice for 999, class 500 is right, all of 1000."""
    labels = torch.tensor([7, 7, 7, 500])
    predicted = torch.tensor([999, 7, 999, 500])
    return Confusions.of(Predictions(torch.arange(4), labels, predicted, torch.ones(4)), CLASSES)


def test_classes_that_are_neither_true_nor_predicted_are_left_out(confusions):
    assert confusions.names == ["class 7", "class 500", "class 999"]
    assert confusions.counts.tolist() == [[1, 0, 2], [0, 1, 0], [0, 0, 0]]
    assert confusions.with_images == 2


def test_a_class_without_images_has_no_accuracy(confusions):
    first, second, third = confusions.figures()
    assert (first.images, first.correct, first.top1) == (3, 1, 33.3333)
    assert (first.confused_with, first.confused_images) == ("class 999", 2)
    assert (second.top1, second.confused_with) == (100.0, None)
    assert (third.images, third.top1, third.predicted) == (0, None, 2)
    assert third.row()["class"] == "class 999"


def test_matrix_has_a_row_a_true_class(confusions):
    assert confusions.matrix()[0] == {"true/predicted": "class 7", "class 7": 1, "class 500": 0, "class 999": 2}


def test_pairs_are_the_mistakes_alone_the_most_frequent_first():
    labels, predicted = torch.tensor([1, 2, 2, 0]), torch.tensor([0, 1, 1, 0])
    found = Confusions.of(Predictions(torch.arange(4), labels, predicted, torch.ones(4)), CLASSES)
    assert found.pairs() == [
        {"label": "class 2", "prediction": "class 1", "images": 2},
        {"label": "class 1", "prediction": "class 0", "images": 1},
    ]


def test_percentages_have_four_decimals():
    assert percent(2 / 3) == 66.6667
