"""The networks that post-training is measured on, and the images that every method sees."""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from image_split import class_of, drawn, image_names, split, write_tar
from measured_command import Cost, measured
from safetensors import safe_open

OUTPUTS = Path(__file__).with_name("network_outputs.py")


@dataclass(frozen=True)
class Subject:
    """A network to quantise.

    Attributes:
        model: its name in timm.
        weights, train, test: files below ``--data``; without ``train``, ``test`` is split, one image a class.
        calibrate, evaluate: images.
        widths: bits of weights and activations.
    """

    model: str
    weights: str
    test: str
    calibrate: int
    evaluate: int
    widths: Sequence[tuple[int, int]]
    train: str | None = None


SUBJECTS = {
    "lite0": Subject(
        model="tf_efficientnet_lite0",
        weights="models/tf_efficientnet_lite0.safetensors",
        test="data/imagenet_samples/even_500.tar",
        calibrate=128,
        evaluate=250,
        widths=((8, 8), (4, 8), (4, 4)),
    ),
    "resnet20": Subject(
        model="resnet20",
        weights="models/resnet20_cifar10.safetensors",
        train="data/cifar10/train.tar",
        test="data/cifar10/test.tar",
        calibrate=1024,
        evaluate=5000,
        widths=((8, 8), (4, 4), (3, 3), (2, 4)),
    ),
}


class Images:
    """A subject's images, split: tars for the command line, pixels for who has no such loader.

    Args:
        subject: whose.
        data: the folder given as ``--data``.
        folder: where they are written.
        most: images of a part.
    """

    def __init__(self, subject: Subject, data: Path, folder: Path, most: int | None) -> None:
        self.subject = subject
        self.weights = data / subject.weights
        self.folder = folder
        self.calibrate = min(subject.calibrate, most or subject.calibrate)
        self.evaluate = min(subject.evaluate, most or subject.evaluate)
        self._train = data / (subject.train or subject.test)
        self._test = data / subject.test
        self.float_run = folder / "float"

    def write(self, seeds: Sequence[int]) -> None:
        """Split the images, and evaluate the network in float; what is there already stays."""
        if self.subject.train is None:
            self._write_split(seeds)
        else:
            self._write_both(seeds)
        if not (self.float_run / "logits.npy").is_file():
            self._evaluate_float()
        for seed in seeds:
            self.pixels(f"calibrate_{seed}")

    def _write_split(self, seeds: Sequence[int]) -> None:
        names = image_names(self._test)
        for seed in seeds:
            parts = split(names, self.calibrate, self.evaluate, seed)
            write_tar(self._test, parts.calibrate, self.tar(f"calibrate_{seed}"))
            write_tar(self._test, parts.evaluate, self.tar("evaluate"))

    def _write_both(self, seeds: Sequence[int]) -> None:
        names = image_names(self._train)
        for seed in seeds:
            write_tar(self._train, drawn(names, self.calibrate, seed), self.tar(f"calibrate_{seed}"))
        judged = drawn(image_names(self._test), self.evaluate, seed=0)
        write_tar(self._test, judged, self.tar("evaluate"))
        classes = sorted({class_of(name) for name in names})
        self._class_names.write_text("\n".join(classes))

    def _evaluate_float(self) -> None:
        micronet("stage=eval", self.arguments(), self.float_run)
        self.pixels("evaluate")
        self.write_logits(self.float_run)

    @property
    def _class_names(self) -> Path:
        return self.folder / "classes.txt"

    def tar(self, part: str) -> Path:
        """Of ``evaluate`` or ``calibrate_<seed>``."""
        return self.folder / f"{part}.tar"

    def pixels(self, part: str) -> Path:
        """The same, preprocessed."""
        path = self.folder / f"{part}.safetensors"
        if not path.is_file():
            _run_outputs("pixels", self.float_run, self.tar(part), path)
        return path

    def write_logits(self, run: Path) -> np.ndarray:
        """Those of a run's network, on the images to evaluate."""
        path = run / "logits.npy"
        _run_outputs("logits", run, self.pixels("evaluate"), path)
        return np.load(path)

    def labels(self) -> np.ndarray:
        """Of the images to evaluate."""
        with safe_open(self.pixels("evaluate"), framework="numpy") as file:
            return file.get_tensor("labels")

    def float_logits(self) -> np.ndarray:
        """Of the network in float, on the images to evaluate."""
        return np.load(self.float_run / "logits.npy")

    def arguments(self) -> list[str]:
        """The network and the images to evaluate, for the command line."""
        classes = self._class_names if self.subject.train else "imagenet"
        return [
            f"model={self.subject.model}",
            f"model.weights={self.weights}",
            "data=imagefolder",
            f"data.test={self.tar('evaluate')}",
            f"data.classes={classes}",
        ]


def micronet(stage: str, arguments: Iterable[str], run: Path) -> Cost:
    """Run a stage in the directory ``run``."""
    program = [sys.executable, "-m", "micronet_cli.command.cli"]
    command = [*program, stage, *arguments, f"hydra.run.dir={run}"]
    return measured(command, run.with_suffix(".log"))


def _run_outputs(*arguments: str | Path) -> None:
    words = [str(argument) for argument in arguments]
    subprocess.run([sys.executable, str(OUTPUTS), *words], check=True)
