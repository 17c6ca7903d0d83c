"""Which class is taken for which: the rows of ``classes.csv``, ``confusion.csv`` and ``confused_pairs.csv``."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from micronet_cli.functional.classification import confusion_matrix
from micronet_cli.training.predictions import Predictions

CORNER = "true/predicted"  # no class is called so: it would be a folder in a folder
DIGITS = 4  # after the point of a percentage
MOST_IN_A_MATRIX = 100  # a table of more columns is read by nobody, and nearly all of it is zeros
PAIR_COLUMNS = ("label", "prediction", "images")


@dataclass(frozen=True)
class ClassFigures:
    """A row of ``classes.csv``.

    Attributes:
        name: of the class; the column is called ``class``.
        images: that are of it.
        correct: those of them that are taken for it.
        top1: percent; None without images.
        predicted: images of any class that are taken for it.
        confused_with: the class that it is most often mistaken for; None where it never is.
        confused_images: how often that is.
    """

    name: str
    images: int
    correct: int
    top1: float | None
    predicted: int
    confused_with: str | None
    confused_images: int

    def row(self) -> dict[str, Any]:
        """With the name that the column has."""
        columns = asdict(self)
        return {"class": columns.pop("name"), **columns}


@dataclass(frozen=True)
class Confusions:
    """Images by true and predicted class, of the classes that have either.

    Attributes:
        names: of these classes, in the order of the network's outputs.
        counts: int64 ``[len(names), len(names)]``; true classes are rows.
    """

    names: list[str]
    counts: Tensor

    @classmethod
    def of(cls, predictions: Predictions, classes: Sequence[str]) -> "Confusions":
        """Those of some predictions, which are numbers in ``classes``."""
        seen = torch.cat([predictions.labels, predictions.predicted]).unique()
        counts = confusion_matrix(
            torch.searchsorted(seen, predictions.labels),
            torch.searchsorted(seen, predictions.predicted),
            len(seen),
        )
        return cls([classes[number] for number in seen.tolist()], counts)

    @property
    def with_images(self) -> int:
        """How many classes have images."""
        return int(self.counts.any(1).sum())

    def figures(self) -> list[ClassFigures]:
        """One a class."""
        return [self._figures_of(number) for number in range(len(self.names))]

    def _figures_of(self, number: int) -> ClassFigures:
        taken_for = self.counts[number]
        images = int(taken_for.sum())
        correct = int(taken_for[number])
        mistaken_for = taken_for.clone()
        mistaken_for[number] = 0
        most = int(mistaken_for.max())
        favourite = self.names[int(mistaken_for.argmax())]
        return ClassFigures(
            name=self.names[number],
            images=images,
            correct=correct,
            top1=percent(correct / images) if images else None,
            predicted=int(self.counts[:, number].sum()),
            confused_with=favourite if most else None,
            confused_images=most,
        )

    def matrix(self) -> list[dict[str, Any]]:
        """A row a true class, a column a predicted one."""
        rows = []
        for name, counts in zip(self.names, self.counts.tolist(), strict=True):
            cells = dict(zip(self.names, counts, strict=True))
            rows.append({CORNER: name, **cells})
        return rows

    def pairs(self) -> list[dict[str, Any]]:
        """A row for every two classes of which one is taken for the other, the most frequent first."""
        rows = []
        for label, predicted in self.counts.nonzero().tolist():
            if label != predicted:
                images = int(self.counts[label, predicted])
                rows.append({"label": self.names[label], "prediction": self.names[predicted], "images": images})
        rows.sort(key=lambda row: row["images"], reverse=True)
        return rows


def percent(fraction: float) -> float:
    """Rounded as it is written."""
    return round(100 * fraction, DIGITS)
