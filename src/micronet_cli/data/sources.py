"""Where images come from: one decoded image and its label at a time."""

import copy
import logging
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from timm.data.readers import create_reader

from micronet_cli.errors import UserError

logging.getLogger("timm.data.readers").setLevel(logging.WARNING)  # tells of every step of scanning a tar


class Source(Protocol):
    """A list of labelled images.

    Attributes:
        labels: class index of every image.
    """

    labels: np.ndarray

    def read(self, index: int) -> Image.Image:
        """The image, RGB; raises OSError or ValueError where it does not decode."""
        ...

    def name(self, index: int) -> str:
        """What to call the image in a log."""
        ...


class ArraySource:
    """Images in memory: uint8 ``[N, H, W]`` or ``[N, H, W, 3]``."""

    def __init__(self, images: np.ndarray, labels: Sequence[int] | np.ndarray) -> None:
        self.images = images
        self.labels = np.asarray(labels, dtype=np.int64)

    def read(self, index: int) -> Image.Image:
        """The image, RGB."""
        image = Image.fromarray(self.images[index])
        return image.convert("RGB")

    def name(self, index: int) -> str:
        """The image's number."""
        return f"image {index}"


class FileSource:
    """Image files in ImageFolder layout, in a directory or a tar, read through timm.

    Attributes:
        classes: folder names, in the order of the class indices.
    """

    def __init__(self, path: str, where: str) -> None:
        try:
            self.reader = create_reader("", str(Path(path).expanduser()))
        except (RuntimeError, AssertionError, OSError, ValueError, tarfile.TarError) as error:
            raise UserError(f"{where}={path!r}: no images in ImageFolder layout (<class>/<image>) ({error})") from None
        # timm's two readers name the same things differently.
        in_tar = hasattr(self.reader, "class_name_to_idx")
        if in_tar:
            index_of_class = self.reader.class_name_to_idx
            targets = self.reader.targets
        else:
            index_of_class = self.reader.class_to_idx
            targets = [target for _, target in self.reader.samples]
        if "" in index_of_class:
            raise UserError(f"{where}={path!r}: images outside of class folders; must be <class>/<image>")
        self.path = path
        self.where = where
        self.classes = sorted(index_of_class, key=index_of_class.__getitem__)
        self.labels = np.array(targets, dtype=np.int64)
        self._process = 0

    def relabelled(self, classes: Sequence[str]) -> "FileSource":
        """The same files under another order of classes, which may be more.

        Raises:
            UserError: a folder's class is not among them.
        """
        if list(classes) == self.classes:
            return self
        unknown = sorted(set(self.classes) - set(classes))
        if unknown:
            examples = ", ".join(unknown[:3])
            raise UserError(
                f"{self.where}={self.path!r}: {len(unknown)} classes that the network does not know: {examples}"
            )
        other = copy.copy(self)
        other.classes = list(classes)
        new_index = np.array([other.classes.index(name) for name in self.classes])
        other.labels = new_index[self.labels]
        return other

    def read(self, index: int) -> Image.Image:
        """The image, RGB."""
        self._own_handles()
        file, _ = self.reader[index]
        with file:
            return Image.open(file).convert("RGB")

    def _own_handles(self) -> None:
        # A forked process shares an open tar's position with its parent: each would read the other's bytes.
        if self._process == os.getpid():
            return
        self._process = os.getpid()
        for tar in self._tars():
            tar.tf = None
            for inner in tar.children.values():
                inner.tf = None

    def _tars(self) -> list:
        """The states of the tars that timm reads: one, or those of a directory."""
        state = getattr(self.reader, "tar_state", None)
        if isinstance(state, dict):
            return list(state.values())
        return [state] if state else []

    def name(self, index: int) -> str:
        """The file's path inside its root."""
        return self.reader.filename(index)


class Subset:
    """Some images of another source."""

    def __init__(self, source: Source, indices: np.ndarray) -> None:
        self.source = source
        self.indices = indices
        self.labels = source.labels[indices]

    def read(self, index: int) -> Image.Image:
        """The image, RGB."""
        return self.source.read(int(self.indices[index]))

    def name(self, index: int) -> str:
        """Its name in the other source."""
        return self.source.name(int(self.indices[index]))


def split_off(source: Source, fraction: float, seed: int) -> tuple[Subset, Subset]:
    """The source in two disjoint parts: (the rest, about ``fraction`` of it), drawn by ``seed``; none is empty."""
    count = len(source.labels)
    order = np.random.default_rng(seed).permutation(count)
    cut = round(count * fraction)
    cut = max(cut, 1)
    cut = min(cut, count - 1)
    part = np.sort(order[:cut])
    rest = np.sort(order[cut:])
    return Subset(source, rest), Subset(source, part)
