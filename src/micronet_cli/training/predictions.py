"""What a network said of every image of an evaluation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from micronet_cli.data.named_images import NamedImages
from micronet_cli.distributed import gather


@dataclass(frozen=True)
class Predictions:
    """One entry an image, in the order of the split.

    Attributes:
        images: which images of the split they are, int64 ``[N]``.
        labels: true classes, int64 ``[N]``.
        predicted: classes, int64 ``[N]``.
        confidence: softmax probability of the predicted class, ``[N]``, in [0, 1].
    """

    images: Tensor
    labels: Tensor
    predicted: Tensor
    confidence: Tensor

    @property
    def correct(self) -> Tensor:
        """Whether each is right, bool ``[N]``."""
        return self.predicted == self.labels

    def most_confident(self, chosen: Tensor) -> list[int]:
        """Positions of the ``chosen`` (bool ``[N]``), the most confident first; of equal ones the earlier."""
        order = self.confidence.argsort(descending=True, stable=True)
        return order[chosen[order]].tolist()


class Recorder:
    """Notes what an evaluation sees: ``evaluate(..., watch=recorder)``. Nothing waits for a GPU meanwhile."""

    def __init__(self) -> None:
        self._labels: list[Tensor] = []
        self._predicted: list[Tensor] = []
        self._confidence: list[Tensor] = []

    def __call__(self, logits: Tensor, labels: Tensor) -> None:
        """Note a batch: logits ``[N, classes]``, labels int64 ``[N]``."""
        confidence, predicted = logits.softmax(dim=1).max(dim=1)
        self._labels.append(labels)
        self._predicted.append(predicted)
        self._confidence.append(confidence)

    def predictions(self, images: NamedImages) -> Predictions:
        """What all processes noted of ``images``; every process has to ask."""
        labels = torch.cat(self._labels).cpu()
        own = Predictions(
            images=torch.tensor(images.visited(len(labels)), dtype=torch.int64),
            labels=labels,
            predicted=torch.cat(self._predicted).cpu(),
            confidence=torch.cat(self._confidence).cpu(),
        )
        parts = gather(own)
        order = torch.cat([part.images for part in parts]).argsort()
        joined = {}
        for name in ("images", "labels", "predicted", "confidence"):
            values = torch.cat([getattr(part, name) for part in parts])
            joined[name] = values[order]
        return Predictions(**joined)
