"""What lies behind an accuracy: classes, confidence, mistakes, and what has changed against another network."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from micronet_cli.data.named_images import NamedImages
from micronet_cli.functional.classification import Bin, calibration_bins, expected_calibration_error
from micronet_cli.runs.directory import Run
from micronet_cli.stages.confusions import MOST_IN_A_MATRIX, PAIR_COLUMNS, ClassFigures, Confusions, percent
from micronet_cli.stages.picture_grid import Captioned, draw
from micronet_cli.training.predictions import Predictions


@dataclass(frozen=True)
class PredictedImage:
    """A row of ``predictions.csv`` and ``mistakes.csv``; the confidence in percent."""

    image: str
    label: str
    prediction: str
    confidence: float


@dataclass(frozen=True)
class ChangedImage:
    """A row of ``changes.csv``: ``change`` is ``broken`` (right before, wrong after) or ``fixed``."""

    image: str
    label: str
    before: str
    after: str
    change: str
    confidence_before: float
    confidence_after: float


@dataclass(frozen=True)
class Explanation:
    """Writes into a run's directory what a network said of a split.

    Attributes:
        run: where the files go.
        images: of the split.
        classes: names in the order of the logits.
        pictures: shown of a kind, at most.
    """

    run: Run
    images: NamedImages
    classes: Sequence[str]
    pictures: int

    def explain(self, predictions: Predictions) -> dict[str, Any]:
        """Write predictions, mistakes, confusions, classes and calibration; the figures for metrics.json."""
        self._write("predictions.csv", self._rows(predictions, range(len(predictions.labels))))
        self._write_mistakes(predictions)
        confusions = Confusions.of(predictions, self.classes)
        worst = self._write_confusions(confusions)
        bins = calibration_bins(predictions.confidence, predictions.correct)
        self.run.write_csv("calibration.csv", [_bin_row(found) for found in bins])
        return {
            "classes_with_images": confusions.with_images,
            "worst_class": worst.name,
            "worst_class_top1": worst.top1,
            "calibration_error": 100 * expected_calibration_error(bins),
        }

    def compare(self, before: Predictions, after: Predictions) -> dict[str, int]:
        """Write what has changed, and pictures of what is broken; how many images are broken and fixed."""
        broken = after.most_confident(before.correct & ~after.correct)
        fixed = after.most_confident(after.correct & ~before.correct)
        changed = self._changes("broken", broken, before, after)
        changed += self._changes("fixed", fixed, before, after)
        self._write("changes.csv", changed, ChangedImage)
        self._draw("broken.png", after, broken)
        return {"broken_images": len(broken), "fixed_images": len(fixed)}

    def _rows(self, predictions: Predictions, positions: Sequence[int]) -> list[PredictedImage]:
        found = []
        for position in positions:
            image = int(predictions.images[position])
            label = int(predictions.labels[position])
            predicted = int(predictions.predicted[position])
            row = PredictedImage(
                image=self.images.name(image),
                label=self.classes[label],
                prediction=self.classes[predicted],
                confidence=percent(predictions.confidence[position].item()),
            )
            found.append(row)
        return found

    def _changes(
        self, change: str, positions: Sequence[int], before: Predictions, after: Predictions
    ) -> list[ChangedImage]:
        images_before = self._rows(before, positions)
        images_after = self._rows(after, positions)
        found = []
        for was, now in zip(images_before, images_after, strict=True):
            row = ChangedImage(
                image=now.image,
                label=now.label,
                before=was.prediction,
                after=now.prediction,
                change=change,
                confidence_before=was.confidence,
                confidence_after=now.confidence,
            )
            found.append(row)
        return found

    def _write_mistakes(self, predictions: Predictions) -> None:
        mistakes = predictions.most_confident(~predictions.correct)
        shown = mistakes[: self.pictures]
        self._write("mistakes.csv", self._rows(predictions, shown))
        self._draw("mistakes.png", predictions, shown)

    def _write_confusions(self, confusions: Confusions) -> ClassFigures:
        """The worst of the classes that have images."""
        if len(confusions.names) <= MOST_IN_A_MATRIX:
            self.run.write_csv("confusion.csv", confusions.matrix())
        else:
            self.run.write_csv("confused_pairs.csv", confusions.pairs(), PAIR_COLUMNS)
        figures = confusions.figures()
        self.run.write_csv("classes.csv", [found.row() for found in figures])
        measured = [found for found in figures if found.top1 is not None]
        return min(measured, key=lambda found: found.top1 or 0.0)

    def _write(self, name: str, rows: Sequence[Any], kind: type = PredictedImage) -> None:
        """Write dataclasses of one ``kind``, which gives the columns where there is no row."""
        columns = [field.name for field in fields(kind)]
        self.run.write_csv(name, [asdict(row) for row in rows], columns)

    def _draw(self, name: str, predictions: Predictions, positions: Sequence[int]) -> None:
        shown = positions[: self.pictures]
        captioned = []
        for position, row in zip(shown, self._rows(predictions, shown), strict=True):
            picture = self.images.picture(int(predictions.images[position]))
            if picture is not None:
                lines = (row.label, f"{row.confidence:.1f} % {row.prediction}")
                captioned.append(Captioned(picture, lines))
        if captioned:
            self.run.write_bytes(name, draw(captioned))


def _bin_row(found: Bin) -> dict[str, Any]:
    row: dict[str, Any] = {
        "low": percent(found.low),
        "high": percent(found.high),
        "images": found.images,
        "confidence": None,
        "top1": None,
    }
    if found.confidence is not None and found.accuracy is not None:
        row["confidence"] = percent(found.confidence)
        row["top1"] = percent(found.accuracy)
    return row
