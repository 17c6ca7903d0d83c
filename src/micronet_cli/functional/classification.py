"""What predictions say of a classifier: what it takes for what, and whether its confidence can be believed."""

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15


def confusion_matrix(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """Images by true class (row) and predicted class (column).

    >>> confusion_matrix(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2)
    tensor([[1, 1],
            [0, 1]])

    Args:
        labels: int64 ``[N]``.
        predictions: int64 ``[N]``.
        classes: number of them.

    Returns:
        int64 ``[classes, classes]``.
    """
    pairs = labels * classes + predictions
    counts = torch.bincount(pairs, minlength=classes * classes)
    return counts.view(classes, classes)


@dataclass(frozen=True)
class Bin:
    """The images whose confidence lies in (``low``, ``high``].

    Attributes:
        low, high: the ends, in [0, 1].
        images: how many there are.
        confidence: their mean confidence, in [0, 1]; None without images.
        accuracy: the fraction that is right, in [0, 1]; None without images.
    """

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


def calibration_bins(confidence: Tensor, correct: Tensor, bins: int = BINS) -> list[Bin]:
    """Images by confidence, in bins of equal width (Guo et al. 2017, arXiv 1706.04599, section 2: 15 of them).

    Args:
        confidence: probability of the predicted class, ``[N]``, in [0, 1].
        correct: whether the prediction is right, bool ``[N]``.
        bins: number of bins; bin m of M holds confidences in ((m - 1) / M, m / M].
    """
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    confidence = confidence.double()
    which = torch.bucketize(confidence, edges[1:-1])
    found = []
    for number in range(bins):
        inside = which == number
        found.append(
            Bin(
                low=edges[number].item(),
                high=edges[number + 1].item(),
                images=int(inside.sum()),
                confidence=_mean(confidence[inside]),
                accuracy=_mean(correct[inside].double()),
            )
        )
    return found


def _mean(values: Tensor) -> float | None:
    return values.mean().item() if len(values) else None


def expected_calibration_error(bins: list[Bin]) -> float:
    """Mean distance of accuracy and confidence, in [0, 1]: ``sum_m n_m / n * |accuracy_m - confidence_m|``.

    ECE of Naeini et al. 2015 (AAAI, "Obtaining well calibrated probabilities using Bayesian binning"), with the bins of
    ``calibration_bins``. 0: of the images that a network is 80 % sure of, 80 % are right.

    >>> right = Bin(0.5, 1.0, images=3, confidence=0.9, accuracy=1.0)
    >>> wrong = Bin(0.0, 0.5, images=1, confidence=0.4, accuracy=0.0)
    >>> round(expected_calibration_error([right, wrong]), 3)
    0.175
    """
    images = sum(found.images for found in bins)
    error = 0.0
    for found in bins:
        if found.accuracy is None or found.confidence is None:
            continue
        gap = abs(found.accuracy - found.confidence)
        share = found.images / images
        error += share * gap
    return error
