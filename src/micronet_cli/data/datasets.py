"""Data sets with named splits: models are selected on val and reported on test."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from micronet_cli.data.base import Data
from micronet_cli.data.sources import ArraySource, FileSource, Source, split_off
from micronet_cli.errors import UserError

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class NoImages(Data):
    """For stages that need no images: ``input_size`` and ``classes`` alone count."""

    def problems(self, splits: Sequence[str]) -> list[str]:
        """Every split is missing."""
        return [f"data.{split}: missing; choose a data set, as data=imagefolder data.{split}=PATH" for split in splits]

    @property
    def own_class_names(self) -> list[str]:
        """None."""
        return []


@dataclass(kw_only=True)
class Digits(Data):
    """scikit-learn's 1,797 real handwritten digits, 8x8 grey (Alpaydin and Kaynak, UCI, CC BY 4.0).

    A fifth is test; val is ``val_fraction`` of the rest.
    """

    def source(self, split: str) -> Source:
        """The images of a split."""
        return self._splits[split]

    @property
    def own_class_names(self) -> list[str]:
        """0 to 9."""
        return [str(digit) for digit in range(10)]

    @cached_property
    def _splits(self) -> dict[str, Source]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        scaled = np.round(digits.images * (255 / 16))
        pixels = scaled.astype(np.uint8)
        whole = ArraySource(pixels, digits.target)
        rest, test = split_off(whole, 0.2, self.split_seed)
        return {
            "train": self._part(rest, "train"),
            "val": self._part(rest, "val"),
            "test": test,
        }


@dataclass(kw_only=True)
class ImageFolder(Data):
    """Directories or tars in ImageFolder layout: the folder at the top is the class (``<class>/.../<image>``).

    Every format that Pillow reads is an image. Hidden files and folders do not count; an empty folder is a class.

    Attributes:
        train, val, test: paths. ``test`` alone suffices for evaluation; without ``val`` a seeded part of train is held
            out.
    """

    train: str | None = None
    val: str | None = None
    test: str | None = None

    def problems(self, splits: Sequence[str]) -> list[str]:
        """Paths that are not given, or not there."""
        needed = dict.fromkeys(self._given(split) for split in splits)
        problems = [self._problem(split) for split in needed]
        return [problem for problem in problems if problem is not None]

    def _problem(self, split: str) -> str | None:
        path = getattr(self, split)
        if path is None:
            return f"data.{split}: missing; give data.{split}=<directory or tar with a folder a class>"
        return None if Path(path).expanduser().exists() else f"data.{split}={path!r}: no such file or directory"

    def source(self, split: str) -> Source:
        """The images of a split."""
        files = self._open(self._given(split))
        if split == "test" or self.val:
            return files
        return self._part(files, split)

    def label_names(self, split: str) -> list[str]:
        """Folder names of what the split is read from."""
        return self._open(self._given(split)).classes

    def _given(self, split: str) -> str:
        """The split whose path images come from: train's where val is held out of it."""
        held_out = split == "val" and self.val is None
        return "train" if held_out else split

    def _where(self, split: str) -> str:
        return super()._where(self._given(split))

    @property
    def own_class_names(self) -> list[str]:
        """Folder names of train, of test where there is no train."""
        split = "train" if self.train else "test"
        return self._open(split).classes

    def _open(self, split: str) -> FileSource:
        if problem := self._problem(split):
            raise UserError(problem)
        if split not in self._opened:
            files = FileSource(getattr(self, split), f"data.{split}")
            log.info("%s", files.summary())
            self._opened[split] = files
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

    def source(self, split: str) -> Source:
        """The images of a split."""
        if split == "test":
            return ArraySource(self._test.data, self._test.targets)
        whole = ArraySource(self._train.data, self._train.targets)
        return self._part(whole, split)

    @property
    def own_class_names(self) -> list[str]:
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
