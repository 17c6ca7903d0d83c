"""Image files to uint8 arrays, in this process or in workers; a file that does not decode is named, not raised."""

import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from micronet_cli.data.randomness import global_rng_at, seed_global_rng
from micronet_cli.data.sources import Source

DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    UnidentifiedImageError,
    Image.DecompressionBombError,
    tarfile.TarError,
)


@dataclass(frozen=True)
class Decoded:
    """One image, or the name of the file that holds none.

    Attributes:
        pixels: uint8 ``[H, W, C]``; None where the file does not decode.
        label: class index.
        name: of the file that does not decode.
    """

    pixels: np.ndarray | None
    label: int
    name: str = ""


class DecodedBatch(NamedTuple):
    """What decoded of a batch; a tuple, for whose parts PyTorch pins memory.

    Attributes:
        images: uint8 ``[N, H, W, C]``.
        labels: int64 ``[N]``.
        places: where in the batch that was asked for they stood.
        corrupt: names of the files that did not decode.
    """

    images: Tensor
    labels: Tensor
    places: Sequence[int]
    corrupt: Sequence[str] = ()


class Decoder(Dataset):
    """``(epoch, index)`` -> the decoded image.

    Attributes:
        source: the image files.
        transform: PIL image -> uint8 array ``[C, H, W]``.
        seed: with the position it decides every random choice of the transform.
        random: whether the transform makes any.
    """

    def __init__(self, source: Source, transform: Callable, seed: int, random: bool) -> None:
        self.source = source
        self.transform = transform
        self.seed = seed
        self.random = random

    def __len__(self) -> int:
        return len(self.source.labels)

    def __getitem__(self, position: tuple[int, int]) -> Decoded:
        epoch, index = position
        label = int(self.source.labels[index])
        try:
            image = self.source.read(int(index))
        except DECODE_ERRORS:
            name = self.source.name(int(index))
            return Decoded(None, label, name)
        pixels = self._transformed(image, epoch, index)
        return Decoded(pixels.transpose(1, 2, 0), label)

    def _transformed(self, image: Image.Image, epoch: int, index: int) -> np.ndarray:
        if not self.random:
            return np.asarray(self.transform(image))
        if get_worker_info():
            seed_global_rng(self.seed, epoch, index)
            return np.asarray(self.transform(image))
        # In the main process somebody else draws from the global generators too.
        with global_rng_at(self.seed, epoch, index):
            return np.asarray(self.transform(image))


def collate(samples: Sequence[Decoded]) -> DecodedBatch:
    """The images that decoded in one array, and the names of those that did not."""
    arrays = []
    labels = []
    places = []
    corrupt = []
    for place, sample in enumerate(samples):
        if sample.pixels is None:
            corrupt.append(sample.name)
            continue
        arrays.append(sample.pixels)
        labels.append(sample.label)
        places.append(place)
    images = torch.from_numpy(np.stack(arrays)) if arrays else torch.empty(0)
    return DecodedBatch(images, torch.tensor(labels, dtype=torch.int64), places, corrupt)
