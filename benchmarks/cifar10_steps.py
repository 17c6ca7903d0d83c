"""The steps of one CIFAR-10 row: the stages of its recipe, the score, the files, their accuracy, and the latency."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar10_recipes import Recipe, Stage
from image_split import class_of, drawn, image_names, write_tar

STUDENT = "resnet20"
TEACHER = "resnet56"
# Columns that the scorer fills.
SCORED = ("weight_sparsity", "weight_bits_mean", "storage_bytes", "math_ops", "micronet_score")


@dataclass(frozen=True)
class Files:
    """What every row reads.

    Attributes:
        train, test: ImageFolder directories or tars.
        student, teacher: weights.
    """

    train: Path
    test: Path
    student: Path
    teacher: Path

    @property
    def images(self) -> tuple[str, ...]:
        """Arguments of ``micronet``."""
        return ("data=imagefolder", f"data.train={self.train}", f"data.test={self.test}")

    @property
    def in_float(self) -> tuple[str, ...]:
        """The same."""
        return (f"model={STUDENT}", f"model.weights={self.student}", *self.images)

    @property
    def taught(self) -> tuple[str, ...]:
        """The same."""
        return (
            "distill=soft_targets",
            f"distill.teacher.model={TEACHER}",
            f"distill.teacher.weights={self.teacher}",
            "distill.teacher.amp=bf16",
        )


def hold_back(train: Path, per_class: int, folder: Path) -> tuple[Path, Path]:
    """Part a training tar: images to train with, and so many of every class to judge by.

    The parts are the same for every seed, recipe and machine. Choices are made on them: test images stay unseen.
    """
    by_class: dict[str, list[str]] = {}
    for name in image_names(train):
        by_class.setdefault(class_of(name), []).append(name)
    held_back: list[str] = []
    to_train: list[str] = []
    for names in by_class.values():
        judged = set(drawn(names, per_class, seed=0))
        for name in names:
            part = held_back if name in judged else to_train
            part.append(name)
    fit = folder / "fit.tar"
    judge = folder / "held_back.tar"
    write_tar(train, to_train, fit)
    write_tar(train, held_back, judge)
    return fit, judge


def micronet(directory: Path, *arguments: str) -> dict[str, Any]:
    """Run a stage in ``directory`` unless it is done; its metrics."""
    metrics = directory / "metrics.json"
    if not _is_done(metrics):
        command = ["micronet", *arguments, f"hydra.run.dir={directory}", "resume=true"]
        print("$", *command, flush=True)
        program = [sys.executable, "-m", "micronet_cli.command.cli"]
        subprocess.run([*program, *command[1:]], check=True)
    return _read(metrics)


def _is_done(metrics: Path) -> bool:
    return metrics.is_file() and _read(metrics)["status"] == "completed"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


class Steps:
    """All steps of one recipe with one seed, each in a directory of its own.

    Args:
        files: what they read.
        directory: of the row.
        seed, epochs: of every stage that trains.
        extra: further arguments of every stage that trains.
    """

    def __init__(self, files: Files, directory: Path, seed: int, epochs: int, extra: Sequence[str]) -> None:
        self._files = files
        self._directory = directory
        self._of_training = (f"seed={seed}", f"trainer.epochs={epochs}", *extra)

    def figures(self, recipe: Recipe) -> dict[str, float]:
        """Run what is not done; all columns of the table."""
        trained = self._train(recipe.stages)
        network = self._directory / recipe.stages[-1].name
        scored = self._step("score", network, *recipe.score)
        found = {
            "top1": trained[-1]["top1"],
            "minutes": sum(metrics["wall_seconds"] for metrics in trained) / 60,
        }
        for name in SCORED:
            found[name] = scored[name]
        return found | self._exported(network, recipe) | self._latency(network)

    def _train(self, stages: Sequence[Stage]) -> list[dict[str, Any]]:
        """Metrics of every stage."""
        start = self._files.in_float
        found = []
        for stage in stages:
            directory = self._directory / stage.name
            taught = self._files.taught if stage.teacher else ()
            metrics = micronet(
                directory,
                f"stage={stage.name}",
                *start,
                *stage.arguments,
                *taught,
                *self._of_training,
            )
            found.append(metrics)
            start = (f"init_from={directory}",)
        return found

    def _step(self, name: str, network: Path, *arguments: str) -> dict[str, Any]:
        """A stage without training on a network; its metrics."""
        return micronet(self._directory / name, f"stage={name}", f"init_from={network}", *arguments)

    def _exported(self, network: Path, recipe: Recipe) -> dict[str, float]:
        """Size of the packed file, its accuracy, and that of the ONNX file in onnxruntime."""
        images = self._files.images
        exported = self._step("export", network, *images, *recipe.score, "export.evaluate=true")
        packed = self._step("eval", self._directory / "export" / "model.mnet", *images)
        report = _read(self._directory / "export" / "export.json")
        in_onnxruntime = report["engines"]["model.onnx"]["onnxruntime all"]["accuracy"]
        return {
            "packed_bytes": exported["file_bytes"],
            "packed_top1": packed["top1"],
            "onnx_top1": in_onnxruntime["top1"],
        }

    def _latency(self, network: Path) -> dict[str, float]:
        """Milliseconds of an image in the fastest engine, and those of the dense network in its own."""
        found = self._step("latency", network)
        return {name: found[name] for name in ("latency_ms", "dense_latency_ms")}


def dense_figures(files: Files, directory: Path) -> dict[str, float]:
    """Those of the network in float."""
    found = micronet(directory, "stage=eval", *files.in_float)
    return {name: found[name] for name in ("top1", *SCORED)}
