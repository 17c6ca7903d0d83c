"""Image files to uint8 arrays, in this process or in workers; a file that does not decode is named, not raised."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from micronet_cli.data.images import UnusableImage, with_channels
from micronet_cli.data.randomness import Position, global_rng_at, seed_global_rng
from micronet_cli.data.sources import Source

# What a source raises where a file does not decode; ``images.UndecodableImage`` is an OSError.
DECODE_ERRORS = (OSError, ValueError)


@dataclass(frozen=True)
class Decoded:
    """One image, or the name of the file that holds none.

    Attributes:
        pixels: uint8 ``[H, W, C]``; None where there are none.
        label: class index.
        name: of a file without pixels.
        mistake: why the run cannot go on with such a file; empty where it is skipped.
    """

    pixels: np.ndarray | None
    label: int
    name: str = ""
    mistake: str = ""


class DecodedBatch(NamedTuple):
    """What decoded of a batch; a tuple, for whose parts PyTorch pins memory.

    Attributes:
        images: uint8 ``[N, H, W, C]``.
        labels: int64 ``[N]``.
        places: where in the batch that was asked for they stood.
        corrupt: names of the files that did not decode.
        mistakes: what ends the run.
    """

    images: Tensor
    labels: Tensor
    places: Sequence[int]
    corrupt: Sequence[str] = ()
    mistakes: Sequence[str] = ()


@dataclass(frozen=True)
class Decoder:
    """From a file to what the network takes, before it is normalised.

    Attributes:
        transform: PIL image -> uint8 array ``[C, H, W]``.
        channels: of the array.
        seed: with the position it decides every random choice of the transform.
        random: whether the transform makes any.
    """

    transform: Callable
    channels: int
    seed: int
    random: bool

    def decode(self, read: Callable[[], Image.Image], label: int, name: str, position: Position) -> Decoded:
        """The image that ``read`` gives; ``position`` is its own in the run: (epoch, ..., number)."""
        try:
            image = with_channels(read(), self.channels)
        except UnusableImage as error:
            return Decoded(None, label, name, mistake=f"{name}: {error}")
        except DECODE_ERRORS:
            return Decoded(None, label, name)
        pixels = self._transformed(image, position)
        return Decoded(pixels.transpose(1, 2, 0), label)

    def _transformed(self, image: Image.Image, position: Position) -> np.ndarray:
        if not self.random:
            return np.asarray(self.transform(image))
        if get_worker_info():
            seed_global_rng(self.seed, *position)
            return np.asarray(self.transform(image))
        # In the main process somebody else draws from the global generators too.
        with global_rng_at(self.seed, *position):
            return np.asarray(self.transform(image))


class DecodedSource(Dataset):
    """``(epoch, index)`` -> the decoded image of a source."""

    def __init__(self, source: Source, decoder: Decoder) -> None:
        self.source = source
        self.decoder = decoder

    def __len__(self) -> int:
        return len(self.source.labels)

    def __getitem__(self, position: tuple[int, int]) -> Decoded:
        epoch, index = position
        index = int(index)
        label = int(self.source.labels[index])
        name = self.source.name(index)
        read = partial(self.source.read, index)
        return self.decoder.decode(read, label, name, (epoch, index))


def collate(samples: Sequence[Decoded]) -> DecodedBatch:
    """The images that decoded in one array, and the names of those that did not."""
    arrays = []
    labels = []
    places = []
    corrupt = []
    mistakes = []
    for place, sample in enumerate(samples):
        if sample.pixels is not None:
            arrays.append(sample.pixels)
            labels.append(sample.label)
            places.append(place)
        elif sample.mistake:
            mistakes.append(sample.mistake)
        else:
            corrupt.append(sample.name)
    images = torch.empty(0)
    if arrays:
        images = torch.from_numpy(np.stack(arrays))
    return DecodedBatch(
        images=images,
        labels=torch.tensor(labels, dtype=torch.int64),
        places=places,
        corrupt=corrupt,
        mistakes=mistakes,
    )


def label_mistake(name: str, label: int | str, classes: int) -> str:
    """Why a label ends the run."""
    return f"{name} has the label {label}; with {classes} classes labels must be whole numbers from 0 to {classes - 1}"
