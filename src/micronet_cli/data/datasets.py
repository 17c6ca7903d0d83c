"""Data sets with named splits: models are selected on val and reported on test."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from micronet_cli.data.augment import Augment, Augmentation
from micronet_cli.data.loader import Loader, LoaderSettings
from micronet_cli.data.sources import ArraySource, FileSource, Source, Subset, split_off
from micronet_cli.errors import UserError
from micronet_cli.models.model import InputSpec

SPLITS = ("train", "val", "test")


@dataclass(kw_only=True)
class Data:
    """What all data sets share.

    Attributes:
        batch_size: images a training step, over all processes; evaluation takes ``eval_batch_size``.
        workers: decoding processes; null: one a core. Splits held in memory need none.
        augment, auto_augment, color_jitter, random_erasing, mixup, cutmix: see ``data.augment.Augmentation``.
        input_size: height and width in pixels; null: the network's.
        cache_mb: a split that fits into so much memory once decoded is decoded once, in MiB.
        max_corrupt: a split may hold so many files that do not decode; they are skipped and named in the log.
        val_fraction: part of train that becomes val where there is no val of its own, in (0, 1).
        split_seed: draws that part.
    """

    batch_size: int = 128
    eval_batch_size: int = 256
    workers: int | None = None
    augment: Augment = "crop_flip"
    auto_augment: str | None = None
    color_jitter: float = 0.4
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    input_size: int | None = None
    cache_mb: int = 1024
    max_corrupt: int = 10
    val_fraction: float = 0.1
    split_seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.batch_size % 2 and (self.mixup or self.cutmix):
            raise ValueError(f"batch_size={self.batch_size}: must be even for mixup and cutmix")
        if not 0 <= self.random_erasing <= 1:
            raise ValueError(f"random_erasing={self.random_erasing}: must be a probability in [0, 1]")
        _ = self.augmentation  # checks its part
        if not 0 < self.val_fraction < 1:
            raise ValueError(f"val_fraction={self.val_fraction}: must be a fraction in (0, 1)")

    def problems(self, splits: Sequence[str]) -> list[str]:
        """What is missing of these splits, without opening them: a line a problem."""
        return []

    def source(self, split: str, classes: Sequence[str] | None = None) -> Source:
        """The images of ``train``, ``val`` or ``test``; ``classes``: names in the order a network knows them."""
        raise NotImplementedError

    @property
    def classes(self) -> list[str]:
        """Class names in the order of their indices."""
        raise NotImplementedError

    @property
    def augmentation(self) -> Augmentation:
        """What happens to training images."""
        return Augmentation(
            self.augment, self.auto_augment, self.color_jitter, self.random_erasing, self.mixup, self.cutmix
        )

    def loader(
        self, split: str, spec: InputSpec, device: torch.device, seed: int = 0, classes: Sequence[str] | None = None
    ) -> Loader:
        """Batches of a split, shuffled and augmented for ``train``."""
        return self._loader(self.source(split, classes), spec, split == "train", device, seed, classes)

    def sample(
        self,
        split: str,
        images: int,
        spec: InputSpec,
        device: torch.device,
        seed: int = 0,
        classes: Sequence[str] | None = None,
    ) -> Loader:
        """Batches of at most so many images of a split, drawn by ``seed``, as evaluation sees them."""
        source = self.source(split, classes)
        chosen = np.sort(np.random.default_rng(seed).permutation(len(source.labels))[:images])
        return self._loader(Subset(source, chosen), spec, False, device, seed, classes)

    def _part(self, whole: Source, split: str) -> Source:
        """``train`` or ``val``, of images that hold both."""
        train, val = split_off(whole, self.val_fraction, self.split_seed)
        return val if split == "val" else train

    def _loader(
        self,
        source: Source,
        spec: InputSpec,
        training: bool,
        device: torch.device,
        seed: int,
        classes: Sequence[str] | None,
    ) -> Loader:
        settings = LoaderSettings(
            batch_size=self.batch_size if training else self.eval_batch_size,
            workers=self.workers,
            cache_mb=self.cache_mb,
            max_corrupt=self.max_corrupt,
            seed=seed,
            augmentation=self.augmentation,
        )
        return Loader(source, spec, settings, training, device, len(classes or self.classes))


@dataclass(kw_only=True)
class Digits(Data):
    """scikit-learn's 1,797 real handwritten digits, 8x8 grey (Alpaydin and Kaynak, UCI, CC BY 4.0).

    A fifth is test; val is ``val_fraction`` of the rest.
    """

    def source(self, split: str, classes: Sequence[str] | None = None) -> Source:
        """The images of a split."""
        return self._splits[split]

    @property
    def classes(self) -> list[str]:
        """0 to 9."""
        return [str(digit) for digit in range(10)]

    @cached_property
    def _splits(self) -> dict[str, Source]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
        rest, test = split_off(ArraySource(pixels, digits.target), 0.2, self.split_seed)
        return {
            "train": self._part(rest, "train"),
            "val": self._part(rest, "val"),
            "test": test,
        }


@dataclass(kw_only=True)
class ImageFolder(Data):
    """Directories or tars in ImageFolder layout (``<class>/<image>``), read through timm.

    Attributes:
        train, val, test: paths. ``test`` alone suffices for evaluation; without ``val`` a seeded part of train is held
            out.
    """

    train: str | None = None
    val: str | None = None
    test: str | None = None

    def problems(self, splits: Sequence[str]) -> list[str]:
        """Paths that are not given, or not there."""
        sources = []
        for split in splits:
            held_out = split == "val" and self.val is None
            sources.append("train" if held_out else split)
        problems = [self._problem(split) for split in dict.fromkeys(sources)]
        return [problem for problem in problems if problem is not None]

    def _problem(self, split: str) -> str | None:
        path = getattr(self, split)
        if path is None:
            return f"data.{split}: missing; give data.{split}=<directory or tar with a folder a class>"
        return None if Path(path).expanduser().exists() else f"data.{split}={path!r}: no such file or directory"

    def source(self, split: str, classes: Sequence[str] | None = None) -> Source:
        """The images of a split."""
        held_out = split == "val" and self.val is None
        opened = self._open("train" if held_out else split)
        files = opened.relabelled(classes or self.classes)
        if split == "test" or self.val:
            return files
        return self._part(files, split)

    @property
    def classes(self) -> list[str]:
        """Folder names of train, of test where there is no train."""
        return self._open("train" if self.train else "test").classes

    def _open(self, split: str) -> FileSource:
        if problem := self._problem(split):
            raise UserError(problem)
        if split not in self._opened:
            self._opened[split] = FileSource(getattr(self, split), f"data.{split}")
        return self._opened[split]

    @cached_property
    def _opened(self) -> dict[str, FileSource]:
        return {}


@dataclass(kw_only=True)
class Cifar(Data):
    """CIFAR-10 or CIFAR-100 (Krizhevsky, 2009) through torchvision; val is held out of the 50,000 training images.

    Attributes:
        variant: 10 or 100 classes.
        root: directory of the extracted or downloaded archive.
        download: fetch it there first.
    """

    variant: Literal[10, 100] = 10
    root: str = "data"
    download: bool = False

    def source(self, split: str, classes: Sequence[str] | None = None) -> Source:
        """The images of a split."""
        if split == "test":
            return ArraySource(self._test.data, self._test.targets)
        whole = ArraySource(self._train.data, self._train.targets)
        return self._part(whole, split)

    @property
    def classes(self) -> list[str]:
        """The archive's names."""
        return list(self._test.classes)

    @cached_property
    def _train(self) -> Any:  # torchvision's CIFAR10, imported lazily
        return self._read(train=True)

    @cached_property
    def _test(self) -> Any:
        return self._read(train=False)

    def _read(self, train: bool) -> Any:
        from torchvision import datasets

        kind = datasets.CIFAR10 if self.variant == 10 else datasets.CIFAR100
        try:
            return kind(self.root, train=train, download=self.download)
        except (RuntimeError, OSError) as error:
            raise UserError(
                f"data.root={self.root!r}: no CIFAR-{self.variant} there ({str(error).splitlines()[0]}); "
                "give data.root=<directory that holds the archive> or data.download=true"
            ) from None
