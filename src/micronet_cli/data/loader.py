"""Batches of a source: decode (or take from memory), augment, normalise.

The order and every random choice follow from the seed, the epoch and the position, so that any batch of any epoch
can be made again, and so that several processes share a batch as one would have had it.
"""

import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from micronet_cli.data.base_loader import BaseLoader
from micronet_cli.data.decoding import DecodedBatch, DecodedSource, collate, label_mistake
from micronet_cli.data.randomness import rng_at
from micronet_cli.data.sources import Source
from micronet_cli.distributed import rank, world_size
from micronet_cli.errors import UserError

# Decoding more images than that into memory shows its progress.
MANY_IMAGES = 5000


@dataclass(kw_only=True)
class Loader(BaseLoader):
    """Batches of images that can be read in any order.

    Attributes:
        source: the images.
        indices: the images that an epoch visits.
    """

    source: Source

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_labels()
        self.indices = np.arange(len(self.source.labels))
        self._queue: list[list[tuple[int, int]]] = []
        self._decoded = DecodedSource(self.source, self.decoder)
        self._cache: Tensor | None = None
        if not self.decoder.random and self._fits_into_memory():
            self._cache = self._fill_cache()

    def _check_labels(self) -> None:
        labels = self.source.labels
        outside = np.flatnonzero((labels < 0) | (labels >= self.classes))
        if len(outside) > 0:
            first = int(outside[0])
            label = int(labels[first])
            name = self.source.name(first)
            mistake = label_mistake(name, label, self.classes)
            raise UserError(f"{self.where}: {mistake}")

    def _fits_into_memory(self) -> bool:
        bytes_of_an_image = int(np.prod(self.spec.size))
        bytes_of_all = len(self.indices) * bytes_of_an_image
        return bytes_of_all <= self.settings.cache_mb * 2**20

    @property
    def images(self) -> int:
        """Images an epoch, corrupt ones that are known left out."""
        return len(self.indices)

    def some(self, images: int) -> "Loader":
        """A loader of so many of these images (or all), at equal distances, for files come sorted by class."""
        few = copy.copy(self)
        if images < self.images:
            last = self.images - 1
            places = np.linspace(0, last, images).round()
            few.indices = self.indices[places.astype(int)]
        return few

    def visited(self, images: int) -> list[int]:
        """Which ``images`` this process got first from an unshuffled epoch, those left out that did not decode."""
        corrupt = set(self.corrupt)
        visited = []
        for part in self._chosen(epoch=0, first=0):
            for index in part.tolist():
                if not corrupt or self.name(index) not in corrupt:
                    visited.append(index)
        return visited[:images]

    def name(self, index: int) -> str:
        """What to call an image."""
        return self.source.name(index)

    def picture(self, index: int) -> Image.Image | None:
        """The image as the network gets it, but for normalisation; None where it does not decode."""
        decoded = self._decoded[0, index]
        if decoded.pixels is None:
            return None
        pixels = decoded.pixels.squeeze()
        return Image.fromarray(pixels).convert("RGB")

    def fetch(self, epoch: int, first: int) -> Iterator[DecodedBatch]:
        """The decoded images of this process's part of every batch from number ``first`` on."""
        chosen = self._chosen(epoch, first)
        if self._cache is not None:
            yield from self._from_memory(self._cache, chosen)
            return
        self._queue.clear()
        for indices in chosen:
            positions = [(epoch, index) for index in indices.tolist()]
            self._queue.append(positions)
        yield from self._stream

    def _chosen(self, epoch: int, first: int) -> list[np.ndarray]:
        """Which images this process's part of each batch holds."""
        order = self.indices
        if self.training:
            order = rng_at(self.settings.seed, epoch).permutation(self.indices)
        chosen = []
        for number in range(first, len(self)):
            start = number * self.batch_size
            whole = order[start : start + self.batch_size]
            chosen.append(whole[rank() :: world_size()])
        return chosen

    def _from_memory(self, cache: Tensor, chosen: list[np.ndarray]) -> Iterator[DecodedBatch]:
        labels = torch.from_numpy(self.source.labels)
        for indices in chosen:
            which = torch.from_numpy(indices)
            yield DecodedBatch(cache[which], labels[which], range(len(which)))

    @cached_property
    def _stream(self) -> DataLoader:
        """Decoding processes that live as long as the loader; ``_queue`` tells them what is next."""
        workers = self.settings.workers
        if workers is None:
            workers = os.cpu_count() or 1
        return DataLoader(
            self._decoded,
            batch_sampler=self._queue,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=collate,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else it draws from the global one
        )

    def _fill_cache(self) -> Tensor:
        channels, height, width = self.spec.size
        images = len(self.indices)
        cache = torch.zeros((images, height, width, channels), dtype=torch.uint8)
        no_progress = True if images <= MANY_IMAGES else None  # None: outside of a terminal
        decodable = []
        for index in tqdm(self.indices, "decode", unit="img", leave=False, disable=no_progress):
            decoded = self._decoded[0, index]
            if decoded.mistake:
                raise UserError(f"{self.where}: {decoded.mistake}")
            if decoded.pixels is None:
                self.note_corrupt([decoded.name])
                continue
            cache[index] = torch.from_numpy(decoded.pixels)
            decodable.append(index)
        self.indices = np.array(decodable, dtype=np.int64)
        return cache
