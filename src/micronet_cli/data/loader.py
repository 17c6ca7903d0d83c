"""Batches: decode (or take from memory), augment, normalise.

The order and every random choice follow from the seed, the epoch and the position, so that any batch of any epoch
can be made again, and so that several processes share a batch as one would have had it.
"""

import copy
import logging
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from tqdm import tqdm

from micronet_cli.data.augment import Augmentation, crop_and_flip, image_transform
from micronet_cli.data.randomness import global_rng_at, rng_at, seed_global_rng
from micronet_cli.data.sources import Source
from micronet_cli.distributed import rank, world_size
from micronet_cli.errors import UserError
from micronet_cli.models.model import InputSpec

log = logging.getLogger(__name__)

DECODE_ERRORS = (
    OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError, tarfile.TarError,
)  # fmt: skip


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
        self._queue: list[list[tuple[int, int]]] = []
        self.indices = np.arange(len(self.source.labels))
        # A row's worth of each: broadcasting over three channels would be seven times slower.
        mean, std = (torch.tensor(v, device=self.device).mul(255) for v in (self.spec.mean, self.spec.std))
        self._mean, self._std = (v.repeat(self.spec.size[2]) for v in (mean, std))
        augmentation = self.settings.augmentation if self.training else None
        random = augmentation is not None and augmentation.per_image
        self._decoder = _Decoder(self.source, image_transform(self.spec, augmentation), self.settings.seed, random)
        fits = len(self.indices) * int(np.prod(self.spec.size)) <= self.settings.cache_mb * 2**20
        self._cache = self._fill_cache() if fits and not random else None

    def __len__(self) -> int:
        """Batches an epoch."""
        full, rest = divmod(len(self.indices), self.settings.batch_size)
        return full + (rest > 0 and (full == 0 or not self.training))

    @property
    def images(self) -> int:
        """Images an epoch, corrupt ones that are known left out."""
        return len(self.indices)

    def some(self, images: int) -> "Loader":
        """A loader of so many of these images (or all), at equal distances, for files come sorted by class."""
        few = copy.copy(self)
        if images < self.images:
            few.indices = self.indices[np.linspace(0, self.images - 1, images).round().astype(int)]
        return few

    def batches(self, epoch: int = 0, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's part of every batch from number ``first`` on.

        Yields:
            images float ``[N, C, H, W]`` normalised; labels int64 ``[N]``, or probabilities ``[N, classes]`` if mixed.

        Raises:
            UserError: more files than ``max_corrupt`` did not decode, or a whole training batch did not.
        """
        seed = self.settings.seed
        order = rng_at(seed, epoch).permutation(self.indices) if self.training else self.indices
        batches = self._own_parts(order)[first:]
        for number, (images, labels, good) in enumerate(self._fetch(batches, epoch), first):
            images, labels = (t.to(self.device, non_blocking=True) for t in (images, labels))
            if self.training:
                yield self._augment(images, labels, np.asarray(good) * world_size() + rank(), (seed, epoch, number))
            elif len(labels):
                yield self._normalise(images), labels

    def _own_parts(self, order: np.ndarray) -> list[np.ndarray]:
        """This process's part of every batch of images in this order."""
        size = self.settings.batch_size
        mine = slice(rank(), None, world_size())
        return [order[number * size : (number + 1) * size][mine] for number in range(len(self))]

    def visited(self, images: int) -> list[int]:
        """Which ``images`` this process got first from an unshuffled epoch, those left out that did not decode."""
        corrupt = set(self.corrupt)
        visited = []
        for part in self._own_parts(self.indices):
            visited += [index for index in part.tolist() if not corrupt or self.name(index) not in corrupt]
        return visited[:images]

    def name(self, index: int) -> str:
        """What to call an image."""
        return self.source.name(index)

    def picture(self, index: int) -> Image.Image | None:
        """The image as the network gets it, but for normalisation; None where it cannot be had again."""
        pixels, _, _ = self._decoder[0, index]
        if pixels is None:
            return None
        return Image.fromarray(pixels.squeeze()).convert("RGB")

    def _augment(self, images: Tensor, labels: Tensor, which: np.ndarray, seed: tuple) -> tuple[Tensor, Tensor]:
        if not len(labels):
            raise UserError(f"data: none of the {self.settings.batch_size} files of a batch decodes")
        augmentation = self.settings.augmentation
        if augmentation.kind in ("crop", "crop_flip"):
            images = crop_and_flip(images, which, augmentation.kind == "crop_flip", seed)
        return augmentation.batch(self._normalise(images), labels, self.classes, (*seed, rank()))

    def _normalise(self, images: Tensor) -> Tensor:
        """uint8 ``[N, H, W, C]`` -> float ``[N, C, H, W]`` in channels_last, which is the same memory order."""
        rows = images.reshape(-1, len(self._mean)).to(torch.float32)
        return rows.sub_(self._mean).div_(self._std).view(images.shape).permute(0, 3, 1, 2)

    def _fetch(self, batches: list[np.ndarray], epoch: int) -> Iterator[tuple[Tensor, Tensor, Sequence[int]]]:
        """uint8 images ``[N, H, W, C]``, labels, and which of the chosen ones they are."""
        if self._cache is not None:
            labels = torch.from_numpy(self.source.labels)
            for chosen in map(torch.from_numpy, batches):
                yield self._cache[chosen], labels[chosen], range(len(chosen))
            return
        self._queue[:] = [[(epoch, index) for index in batch.tolist()] for batch in batches]
        for images, labels, good, bad in self._stream:
            self._note_corrupt(bad)
            yield images, labels, good

    @cached_property
    def _stream(self) -> DataLoader:
        """Decoding processes that live as long as the loader; ``_queue`` tells them what is next."""
        workers = self.settings.workers
        workers = (os.cpu_count() or 1) if workers is None else workers
        return DataLoader(
            self._decoder,
            batch_sampler=self._queue,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=_collate,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else it draws from the global one
        )

    def _fill_cache(self) -> Tensor:
        channels, height, width = self.spec.size
        cache = torch.zeros((len(self.indices), height, width, channels), dtype=torch.uint8)
        good = []
        small = len(self.indices) <= 5000
        for index in tqdm(self.indices, "decode", unit="img", leave=False, disable=True if small else None):
            image, _, bad = self._decoder[0, index]
            if image is not None:
                cache[index] = torch.from_numpy(image)
                good.append(index)
            else:
                self._note_corrupt([bad])
        self.indices = np.array(good, dtype=np.int64)
        return cache

    def _note_corrupt(self, names: list[str]) -> None:
        for name in names:
            if name not in self.corrupt:
                self.corrupt.append(name)
                log.warning("skipped %s: it does not decode (%d so far)", name, len(self.corrupt))
        if len(self.corrupt) > self.settings.max_corrupt:
            raise UserError(
                f"data.max_corrupt={self.settings.max_corrupt}: more files than that do not decode, "
                f"{', '.join(self.corrupt[:3])} among them; mend them or raise data.max_corrupt"
            )


class _Decoder(Dataset):
    """(epoch, index) -> (uint8 image [H, W, C], label, ""), or (None, -1, file name) where it does not decode."""

    def __init__(self, source: Source, transform: Callable, seed: int, random: bool) -> None:
        self.source, self.transform, self.seed, self.random = source, transform, seed, random

    def __len__(self) -> int:
        return len(self.source.labels)

    def __getitem__(self, position: tuple[int, int]) -> tuple[np.ndarray | None, int, str]:
        epoch, index = position
        try:
            image = self.source.read(int(index))
        except DECODE_ERRORS:
            return None, -1, self.source.name(int(index))
        if not self.random:
            pixels = self.transform(image)
        elif get_worker_info():
            seed_global_rng(self.seed, epoch, index)
            pixels = self.transform(image)
        else:
            # In the main process somebody else draws from them too.
            with global_rng_at(self.seed, epoch, index):
                pixels = self.transform(image)
        return np.asarray(pixels).transpose(1, 2, 0), int(self.source.labels[index]), ""


def _collate(samples: list) -> tuple[Tensor, Tensor, list[int], list[str]]:
    good = [i for i, (image, *_) in enumerate(samples) if image is not None]
    images = torch.from_numpy(np.stack([samples[i][0] for i in good])) if good else torch.empty(0)
    labels = torch.tensor([samples[i][1] for i in good], dtype=torch.int64)
    return images, labels, good, [bad for *_, bad in samples if bad]
