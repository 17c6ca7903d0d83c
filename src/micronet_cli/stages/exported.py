"""What exported files are worth: layer by layer and on the evaluation split, in every engine that is installed."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from micronet_cli.artifact.compare_engines import EngineReport, onnx_reports, openers, rounding_report
from micronet_cli.artifact.onnx import INPUT, OUTPUT
from micronet_cli.errors import UserError
from micronet_cli.models.model import Model
from micronet_cli.network import Network
from micronet_cli.stages.job import Job
from micronet_cli.tables import text_table

log = logging.getLogger(__name__)
# Below or beyond these an exported file is not the network that was reported.
LEAST_EQUAL = 0.99
MOST_LOST_POINTS = 0.5
GUESSING_SIGMAS = 3
# What users run; the lower levels of optimisation tell where a difference comes from.
EVALUATED = ("onnxruntime all", "openvino")
SIMULATOR = "simulator"


@dataclass
class Accuracy:
    """What a file says of the evaluation split in an engine.

    Attributes:
        images: evaluated.
        hits: right answers.
        network_hits: those of the network that the file was made of.
        equal: images with the network's answer.
    """

    images: int = 0
    hits: int = 0
    network_hits: int = 0
    equal: int = 0

    def add(self, found: Tensor, expected: Tensor, labels: Tensor) -> None:
        """Count a batch: the file's logits and the network's, ``[N, classes]``, and labels int64 ``[N]``."""
        our_classes = expected.argmax(1)
        their_classes = found.argmax(1)
        self.images += len(labels)
        self.hits += int((their_classes == labels).sum())
        self.network_hits += int((our_classes == labels).sum())
        self.equal += int((their_classes == our_classes).sum())

    @property
    def top1(self) -> float:
        """In percent."""
        return 100 * self.hits / self.images

    @property
    def network_top1(self) -> float:
        """In percent."""
        return 100 * self.network_hits / self.images

    @property
    def equal_predictions(self) -> float:
        """Share of the images, in [0, 1]."""
        return self.equal / self.images

    def warnings(self) -> list[str]:
        """What a user must know before the file is used."""
        found = []
        if self.equal_predictions < LEAST_EQUAL:
            found.append(f"{100 * self.equal_predictions:.1f} % equal predictions")
        lost = self.network_top1 - self.top1
        if lost > MOST_LOST_POINTS:
            found.append(f"{lost:.1f} points lost")
        return found

    def is_guessing(self, classes: int) -> bool:
        """Whether the network is right no more often than by chance."""
        chance = 1 / classes
        deviation = math.sqrt(chance * (1 - chance) / self.images)
        return self.network_hits / self.images <= chance + GUESSING_SIGMAS * deviation

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "images": self.images,
            "top1": self.top1,
            "network_top1": self.network_top1,
            "equal_predictions": self.equal_predictions,
        }


@dataclass
class Exported:
    """Exported files in engines.

    Attributes:
        reports: file -> engine -> its layers.
        accuracies: file -> engine -> its accuracy; empty where nothing was evaluated.
        untrained: why the network's answers mean nothing; None where they do.
    """

    reports: dict[str, dict[str, EngineReport]]
    accuracies: dict[str, dict[str, Accuracy]]
    untrained: str | None

    def warnings(self, file: str, engine: str) -> list[str]:
        """Of one file in one engine; none of an untrained network, whose answers a rounding changes."""
        accuracy = self.accuracies.get(file, {}).get(engine)
        if accuracy is None or self.untrained:
            return []
        return accuracy.warnings()

    def table(self) -> str:
        """A line for each file and engine."""
        lines = []
        for file, by_engine in self.reports.items():
            for engine, report in by_engine.items():
                line = {"file": file, "engine": engine} | report.row()
                accuracy = self.accuracies.get(file, {}).get(engine)
                if accuracy is not None:
                    line["top-1"] = f"{accuracy.top1:.2f}"
                    line["equal"] = f"{100 * accuracy.equal_predictions:.2f} %"
                found = self.warnings(file, engine)
                if found:
                    line["warning"] = ", ".join(found)
                lines.append(line)
        return text_table(lines)

    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds: the worst of all files and engines, and the warnings."""
        found: dict[str, Any] = {"export_warnings": self.all_warnings()}
        accuracies = [accuracy for by_engine in self.accuracies.values() for accuracy in by_engine.values()]
        if accuracies:
            found["exported_top1"] = min(accuracy.top1 for accuracy in accuracies)
            found["exported_equal_predictions"] = min(accuracy.equal_predictions for accuracy in accuracies)
            found["exported_images"] = accuracies[0].images
        return found

    def all_warnings(self) -> list[str]:
        """All of them, each with its file and engine."""
        found = []
        if self.untrained:
            found.append(f"untrained network: {self.untrained}")
        for file, by_engine in self.accuracies.items():
            for engine in by_engine:
                found += [f"{file} in {engine}: {text}" for text in self.warnings(file, engine)]
        return found

    def as_json(self) -> dict[str, Any]:
        """File -> engine -> its figures."""
        found: dict[str, Any] = {}
        for file, by_engine in self.reports.items():
            found[file] = {}
            for engine, report in by_engine.items():
                entry = report.as_json()
                accuracy = self.accuracies.get(file, {}).get(engine)
                if accuracy is not None:
                    entry["accuracy"] = accuracy.as_json()
                found[file][engine] = entry
        return found


def examine(job: Job, network: Network, images: Tensor, packed: EngineReport, files: Mapping[Path, bool]) -> Exported:
    """Compare and, where evaluation data are there, evaluate.

    Args:
        job: the run.
        network: what the files were made of.
        images: ``[N, C, H, W]``, compared layer by layer.
        packed: the comparison of the packed file.
        files: ONNX files, and whether each has the network's own quantisers.

    Raises:
        UserError: ``export.evaluate=true`` without evaluation data.
    """
    model = network.model.eval()
    reports = {SIMULATOR: {"float64": rounding_report(model, images)}, job.run.packed.name: {"micronet": packed}}
    for path, by_layer in files.items():
        reports[path.name] = onnx_reports(path, model, images, by_layer)
    accuracies: dict[str, dict[str, Accuracy]] = {}
    if files and _evaluates(job):
        accuracies = _evaluated(job, network, list(files))
    untrained = _without_weights(job)
    for by_engine in accuracies.values():
        for accuracy in by_engine.values():
            if accuracy.is_guessing(len(network.classes)):
                untrained = f"its top-1 of {accuracy.network_top1:.2f} % is what guessing gives"
    return Exported(reports, accuracies, untrained)


def _evaluates(job: Job) -> bool:
    """Whether there are images to evaluate on, and the user does not refuse.

    Raises:
        UserError: they are asked for and missing.
    """
    asked = job.parts.export.evaluate
    split = job.parts.eval.split
    if asked:
        job.require_splits(split)
    if asked is False:
        return False
    return not job.parts.data.problems((split,))


@torch.no_grad()
def _evaluated(job: Job, network: Network, files: list[Path]) -> dict[str, dict[str, Accuracy]]:
    """File -> engine -> its accuracy on ``eval.split``, every image once."""
    device = torch.device("cpu")
    loader = job.loader(network, job.parts.eval.split, device)
    known = openers()
    engines = [name for name in EVALUATED if name in known]
    runs = {}
    found: dict[str, dict[str, Accuracy]] = {}
    for path in files:
        found[path.name] = {engine: Accuracy() for engine in engines}
        for engine in engines:
            runs[path.name, engine] = known[engine](path)
    for images, labels in loader.batches():
        expected = network.model(images)
        for (file, engine), run in runs.items():
            logits = run({INPUT: images.numpy()})[OUTPUT]
            found[file][engine].add(torch.from_numpy(logits), expected, labels)
    if not next(iter(found.values()))[engines[0]].images:
        raise UserError(f"eval.split={job.parts.eval.split}: no image in it; give export.evaluate=false")
    return found


def _without_weights(job: Job) -> str | None:
    """Why a network is known to be untrained before it is run; None: it may be trained."""
    model = job.parts.model
    if job.init_from or not isinstance(model, Model):
        return None
    if model.weights or model.pretrained:
        return None
    return "neither init_from, model.weights nor model.pretrained says where its weights come from"
