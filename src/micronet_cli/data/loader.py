"""Batches: decode (or take from memory), augment, normalise.

The order and every random choice follow from the seed, the epoch and the position, so that any batch of any epoch
can be made again, and so that several processes share a batch as one would have had it.
"""

import copy
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from micronet_cli.data.augment import Augmentation, Batch, crop_and_flip, image_transform
from micronet_cli.data.decoding import DecodedBatch, Decoder, collate
from micronet_cli.data.randomness import Position, rng_at
from micronet_cli.data.sources import Source
from micronet_cli.distributed import rank, world_size
from micronet_cli.errors import UserError
from micronet_cli.models.model import InputSpec

log = logging.getLogger(__name__)

# Decoding more images than that into memory shows its progress.
MANY_IMAGES = 5000


@dataclass(frozen=True)
class LoaderSettings:
    """How to load; see ``data.datasets.Data``. ``batch_size`` is the sum over all processes."""

    batch_size: int
    workers: int | None = None
    cache_mb: int = 1024
    max_corrupt: int = 10
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass
class Loader:
    """One split's batches.

    Attributes:
        source: the images.
        spec: what the network takes.
        settings: batch size and the like.
        training: shuffle, augment and drop the last partial batch.
        device: where batches go.
        classes: number of them.
        indices: the images that an epoch visits.
        corrupt: names of the files that did not decode.
    """

    source: Source
    spec: InputSpec
    settings: LoaderSettings
    training: bool
    device: torch.device
    classes: int

    def __post_init__(self) -> None:
        self.corrupt: list[str] = []
        self.indices = np.arange(len(self.source.labels))
        self._queue: list[list[tuple[int, int]]] = []
        self._mean = self._row_of(self.spec.mean)
        self._std = self._row_of(self.spec.std)
        augmentation = self.settings.augmentation if self.training else None
        changes_images = augmentation is not None and augmentation.per_image
        transform = image_transform(self.spec, augmentation)
        self._decoder = Decoder(self.source, transform, self.settings.seed, changes_images)
        self._cache: Tensor | None = None
        if not changes_images and self._fits_into_memory():
            self._cache = self._fill_cache()

    def _row_of(self, channels: tuple[float, ...]) -> Tensor:
        """One value a channel, in [0, 1], for a whole row of uint8 pixels.

        A row's worth: broadcasting over three channels would be seven times slower.
        """
        values = torch.tensor(channels, device=self.device).mul(255)
        width = self.spec.size[2]
        return values.repeat(width)

    def _fits_into_memory(self) -> bool:
        bytes_of_an_image = int(np.prod(self.spec.size))
        bytes_of_all = len(self.indices) * bytes_of_an_image
        return bytes_of_all <= self.settings.cache_mb * 2**20

    def __len__(self) -> int:
        """Batches an epoch."""
        full, rest = divmod(len(self.indices), self.settings.batch_size)
        if rest == 0:
            return full
        # Training leaves the partial batch out, unless there is no other.
        if self.training and full > 0:
            return full
        return full + 1

    @property
    def images(self) -> int:
        """Images an epoch, corrupt ones that are known left out."""
        return len(self.indices)

    def some(self, images: int) -> "Loader":
        """A loader of so many of these images (or all), at equal distances, for files come sorted by class."""
        few = copy.copy(self)
        if images < self.images:
            places = np.linspace(0, self.images - 1, images).round().astype(int)
            few.indices = self.indices[places]
        return few

    def batches(self, epoch: int = 0, first: int = 0) -> Iterator[Batch]:
        """This process's part of every batch from number ``first`` on.

        Yields:
            images float ``[N, C, H, W]`` normalised; labels int64 ``[N]``, or probabilities ``[N, classes]`` if mixed.

        Raises:
            UserError: more files than ``max_corrupt`` did not decode, or a whole training batch did not.
        """
        numbers = range(first, len(self))
        decoded = self._fetch(self._chosen(epoch, numbers), epoch)
        for number, batch in zip(numbers, decoded, strict=True):
            images = batch.images.to(self.device, non_blocking=True)
            labels = batch.labels.to(self.device, non_blocking=True)
            if self.training:
                places_in_whole = np.asarray(batch.places) * world_size() + rank()
                position = (self.settings.seed, epoch, number)
                yield self._augmented(images, labels, places_in_whole, position)
            elif len(labels) > 0:
                yield self._normalise(images), labels

    def _chosen(self, epoch: int, numbers: range) -> list[np.ndarray]:
        """Which images this process's part of each batch holds."""
        order = self.indices
        if self.training:
            order = rng_at(self.settings.seed, epoch).permutation(self.indices)
        size = self.settings.batch_size
        chosen = []
        for number in numbers:
            whole = order[number * size : (number + 1) * size]
            chosen.append(whole[rank() :: world_size()])
        return chosen

    def _augmented(self, images: Tensor, labels: Tensor, places: np.ndarray, position: Position) -> Batch:
        if len(labels) == 0:
            raise UserError(f"data: none of the {self.settings.batch_size} files of a batch decodes")
        augmentation = self.settings.augmentation
        if augmentation.kind in ("crop", "crop_flip"):
            flip = augmentation.kind == "crop_flip"
            images = crop_and_flip(images, places, flip, position)
        normalised = self._normalise(images)
        return augmentation.batch(normalised, labels, self.classes, (*position, rank()))

    def _normalise(self, images: Tensor) -> Tensor:
        """uint8 ``[N, H, W, C]`` -> float ``[N, C, H, W]`` in channels_last, which is the same memory order."""
        rows = images.reshape(-1, len(self._mean)).to(torch.float32)
        rows.sub_(self._mean).div_(self._std)
        return rows.view(images.shape).permute(0, 3, 1, 2)

    def _fetch(self, chosen: list[np.ndarray], epoch: int) -> Iterator[DecodedBatch]:
        """The chosen images of each batch, undecodable ones left out."""
        if self._cache is not None:
            yield from self._from_memory(self._cache, chosen)
            return
        self._queue.clear()
        for indices in chosen:
            positions = [(epoch, index) for index in indices.tolist()]
            self._queue.append(positions)
        for batch in self._stream:
            self._note_corrupt(batch.corrupt)
            yield batch

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
            self._decoder,
            batch_sampler=self._queue,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=collate,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else it draws from the global one
        )

    def _fill_cache(self) -> Tensor:
        channels, height, width = self.spec.size
        cache = torch.zeros((len(self.indices), height, width, channels), dtype=torch.uint8)
        no_progress = True if len(self.indices) <= MANY_IMAGES else None  # None: outside of a terminal
        decodable = []
        for index in tqdm(self.indices, "decode", unit="img", leave=False, disable=no_progress):
            decoded = self._decoder[0, index]
            if decoded.pixels is None:
                self._note_corrupt([decoded.name])
                continue
            cache[index] = torch.from_numpy(decoded.pixels)
            decodable.append(index)
        self.indices = np.array(decodable, dtype=np.int64)
        return cache

    def _note_corrupt(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.corrupt:
                self.corrupt.append(name)
                log.warning("skipped %s: it does not decode (%d so far)", name, len(self.corrupt))
        allowed = self.settings.max_corrupt
        if len(self.corrupt) > allowed:
            examples = ", ".join(self.corrupt[:3])
            raise UserError(
                f"data.max_corrupt={allowed}: more files than that do not decode, {examples} among them; "
                "mend them or raise data.max_corrupt"
            )
