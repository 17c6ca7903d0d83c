"""Where images come from: one decoded image and its label at a time."""

import copy
import io
import logging
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from micronet_cli.data.class_names import UNKNOWN, described_unknown, outputs_of
from micronet_cli.data.images import read_image
from micronet_cli.data.listing import listing
from micronet_cli.errors import UserError

log = logging.getLogger(__name__)

# Sets of more classes than that are summed up without their names.
MOST_NAMED = 10


class Source(Protocol):
    """A list of labelled images.

    Attributes:
        labels: class index of every image.
    """

    labels: np.ndarray

    def read(self, index: int) -> Image.Image:
        """The image with 8 bits a channel, grey or in colour.

        Raises:
            OSError, ValueError: it does not decode.
            UnusableImage: it decodes to what no network takes.
        """
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
        """The image, grey or RGB."""
        return Image.fromarray(self.images[index])

    def name(self, index: int) -> str:
        """The image's number."""
        return f"image {index}"


class FileSource:
    """Image files in class folders, in a directory or a tar.

    Attributes:
        classes: folder names, in the order of the class indices.
        left_out: names of files that are no images.
    """

    def __init__(self, path: str, where: str) -> None:
        self.path = path
        self.where = where
        self._root = Path(path).expanduser()
        try:
            found = listing(self._root)
        except (OSError, ValueError, tarfile.TarError) as error:
            raise UserError(f"{where}={path!r}: no images in ImageFolder layout (<class>/<image>) ({error})") from None
        self._images = found.images
        self.classes = found.classes
        self.left_out = found.left_out
        index_of_class = {}
        for index, name in enumerate(found.classes):
            index_of_class[name] = index
        indices = [index_of_class[folder] for folder in found.folders]
        self.labels = np.array(indices, dtype=np.int64)
        empty = [name for name, images in self.counts.items() if images == 0]
        if empty:
            log.warning("%s=%r: classes of 0 images: %s", where, path, _some_of(empty))

    @property
    def counts(self) -> dict[str, int]:
        """Images of each class."""
        images = np.bincount(self.labels, minlength=len(self.classes))
        return dict(zip(self.classes, images.tolist(), strict=True))

    def summary(self) -> str:
        """What was found, on one line."""
        images = len(self.labels)
        counts = self.counts
        text = f"{self.where}={self.path!r}: {images} images in {len(counts)} classes ({_of_classes(counts)})"
        if self.left_out:
            text += f"; left out, no images: {_some_of(self.left_out)}"
        return text

    def read(self, index: int) -> Image.Image:
        """The image, upright."""
        entry = self._images[index]
        if entry.size < 0:
            with (self._root / entry.name).open("rb") as file:
                return read_image(file)
        # A handle of its own: processes that share one would move its position under each other's reads.
        with self._root.open("rb") as tar:
            tar.seek(entry.offset)
            content = tar.read(entry.size)
        return read_image(io.BytesIO(content))

    def name(self, index: int) -> str:
        """The file's path inside its root."""
        return self._images[index].name


class Subset:
    """Some images of another source."""

    def __init__(self, source: Source, indices: np.ndarray) -> None:
        self.source = source
        self.indices = indices
        self.labels = source.labels[indices]

    def read(self, index: int) -> Image.Image:
        """The image as the other source gives it."""
        number = int(self.indices[index])
        return self.source.read(number)

    def name(self, index: int) -> str:
        """Its name in the other source."""
        number = int(self.indices[index])
        return self.source.name(number)


def relabelled(source: Source, own: Sequence[str], names: Sequence[str], where: str) -> Source:
    """The same images labelled by a network's outputs.

    Args:
        source: its labels are indices of ``own``; others become ``UNKNOWN``.
        own: the data set's class names.
        names: the network's, in the order of its outputs; they may be more.
        where: the place in the config that mistakes are named by.

    Raises:
        UserError: an image is of a class that is not among ``names``.
    """
    if list(own) == list(names):
        return source
    labels = source.labels
    is_known = (labels >= 0) & (labels < len(own))
    output_of = outputs_of(own, names)
    outputs = np.full(len(labels), UNKNOWN)
    outputs[is_known] = output_of[labels[is_known]]
    has_no_output = is_known & (outputs == UNKNOWN)
    left_out = np.unique(labels[has_no_output])
    if len(left_out) > 0:
        unknown = [own[label] for label in left_out]
        raise UserError(f"{where}: {described_unknown(unknown, names)}")
    other = copy.copy(source)
    other.labels = outputs
    return other


def split_off(source: Source, fraction: float, seed: int) -> tuple[Subset, Subset]:
    """The source in two disjoint parts: (the rest, about ``fraction`` of it), drawn by ``seed``; none is empty."""
    count = len(source.labels)
    generator = np.random.default_rng(seed)
    order = generator.permutation(count)
    cut = round(count * fraction)
    cut = max(cut, 1)
    cut = min(cut, count - 1)
    part = np.sort(order[:cut])
    rest = np.sort(order[cut:])
    return Subset(source, rest), Subset(source, part)


def _of_classes(counts: Mapping[str, int]) -> str:
    """``red 3, blue 4``; of many classes ``3 to 4 each``."""
    if len(counts) <= MOST_NAMED:
        return ", ".join(f"{name} {images}" for name, images in counts.items())
    fewest = min(counts.values())
    most = max(counts.values())
    if fewest == most:
        return f"{fewest} each"
    return f"{fewest} to {most} each"


def _some_of(names: Sequence[str]) -> str:
    """``2 (a, b)``, or ``20 (a, b, c and more)``."""
    shown = ", ".join(names[:3])
    more = " and more" if len(names) > 3 else ""
    return f"{len(names)} ({shown}{more})"
