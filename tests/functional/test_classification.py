"""Guards the figures of a classifier's mistakes and confidence, by hand: matrix, bins with their ends, ECE."""

import pytest
import torch

from micronet_cli.functional.classification import (
    Bin,
    calibration_bins,
    confusion_matrix,
    expected_calibration_error,
)


def test_confusion_has_true_classes_as_rows():
    labels = torch.tensor([0, 0, 0, 2, 2])
    predictions = torch.tensor([0, 1, 1, 2, 0])
    expected = [[1, 2, 0], [0, 0, 0], [1, 0, 1]]
    assert confusion_matrix(labels, predictions, classes=3).tolist() == expected


def test_a_confidence_on_an_edge_is_in_the_lower_bin():
    confidence = torch.tensor([0.25, 0.5, 0.500001, 1.0, 0.0])
    bins = calibration_bins(confidence, torch.tensor([True, False, True, True, False]), bins=4)
    assert [found.images for found in bins] == [2, 1, 1, 1]
    assert [(found.low, found.high) for found in bins] == [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]
    assert bins[0] == Bin(0, 0.25, images=2, confidence=0.125, accuracy=0.5)


def test_a_bin_without_images_has_no_means():
    (lower, upper) = calibration_bins(torch.tensor([0.9]), torch.tensor([True]), bins=2)
    assert lower == Bin(0, 0.5, images=0, confidence=None, accuracy=None)
    assert upper.accuracy == 1


def test_every_image_is_in_one_of_fifteen_bins():
    confidence = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    bins = calibration_bins(confidence, confidence > 0.5)
    assert len(bins) == 15
    assert sum(found.images for found in bins) == 1000


def test_error_weighs_bins_by_their_images():
    # Three images at 0.9, two of them right; one at 0.4, wrong: 3/4 |2/3 - 0.9| + 1/4 |0 - 0.4|
    confidence = torch.tensor([0.9, 0.9, 0.9, 0.4], dtype=torch.float64)
    bins = calibration_bins(confidence, torch.tensor([True, True, False, False]))
    assert expected_calibration_error(bins) == pytest.approx(0.75 * (0.9 - 2 / 3) + 0.25 * 0.4)


def test_error_of_a_network_that_is_as_right_as_sure_is_zero():
    confidence = torch.full((4,), 0.75)
    bins = calibration_bins(confidence, torch.tensor([True, True, True, False]))
    assert expected_calibration_error(bins) == 0
