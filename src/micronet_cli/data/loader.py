"""Batches: decode (or take from memory), augment, normalise.

The order and every random choice follow from the seed, the epoch and the position, so that any batch of any epoch
can be made again.
"""

import logging
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from tqdm import tqdm

from micronet_cli.data.sources import Source
from micronet_cli.errors import UserError
from micronet_cli.models.model import InputSpec

log = logging.getLogger(__name__)

DECODE_ERRORS = (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError)


@dataclass(frozen=True)
class LoaderSettings:
    """What a data set's config says of loading; see ``data.datasets.Data``."""

    batch_size: int
    workers: int | None
    augment: str
    cache_mb: int
    max_corrupt: int
    seed: int


class Loader:
    """One split's batches.

    Args:
        source: the images.
        spec: what the network wants.
        settings: batch size and the like.
        training: shuffle, augment and drop the last partial batch.
        device: where batches go.

    Attributes:
        images: number of images an epoch visits.
        corrupt: names of the files that did not decode.
    """

    def __init__(
        self, source: Source, spec: InputSpec, settings: LoaderSettings, training: bool, device: torch.device
    ) -> None:
        self.source, self.spec, self.settings = source, spec, settings
        self.training, self.device = training, device
        self.corrupt: list[str] = []
        self.indices = np.arange(len(source.labels))
        self._mean, self._std = (
            torch.tensor(v, device=device).mul(255).view(1, -1, 1, 1) for v in (spec.mean, spec.std)
        )
        random_size = training and settings.augment == "imagenet"
        self._decoder = _Decoder(source, _transform(spec, training=random_size), settings.seed if random_size else None)
        fits = len(self.indices) * int(np.prod(spec.size)) <= settings.cache_mb * 2**20
        self._cache = self._fill_cache() if fits and not random_size else None

    def __len__(self) -> int:
        """Batches an epoch."""
        full, rest = divmod(len(self.indices), self.settings.batch_size)
        return full + (rest > 0 and (full == 0 or not self.training))

    @property
    def images(self) -> int:
        """Images an epoch, corrupt ones that are known left out."""
        return len(self.indices)

    def batches(self, epoch: int = 0, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """``(images float [N, C, H, W] normalised, labels int64 [N])`` from batch number ``first`` on.

        Raises:
            UserError: more files than ``max_corrupt`` did not decode.
        """
        order = self._rng(epoch).permutation(self.indices) if self.training else self.indices
        size = self.settings.batch_size
        wanted = [order[i * size : (i + 1) * size] for i in range(first, len(self))]
        for number, (images, labels) in enumerate(self._fetch(wanted, epoch), first):
            yield self._finish(images, self._rng(epoch, number)), labels.to(self.device)

    def _rng(self, *position: int) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, *position])

    def _fetch(self, wanted: list[np.ndarray], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        if self._cache is not None:
            labels = torch.from_numpy(self.source.labels)
            yield from ((self._cache[torch.from_numpy(i)], labels[torch.from_numpy(i)]) for i in wanted)
            return
        for images, labels, bad in self._stream(wanted, epoch):
            self._note_corrupt(bad)
            if len(labels):
                yield images, labels

    def _stream(self, wanted: list[np.ndarray], epoch: int) -> DataLoader:
        workers = self.settings.workers
        self._decoder.epoch = epoch
        return DataLoader(
            self._decoder,
            batch_sampler=[batch.tolist() for batch in wanted],
            num_workers=(os.cpu_count() or 1) if workers is None else workers,
            collate_fn=_collate,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else it draws from the global one
        )

    def _fill_cache(self) -> Tensor:
        cache = torch.zeros((len(self.indices), *self.spec.size), dtype=torch.uint8)
        good = []
        hidden = None if len(self.indices) > 5000 else True
        for index in tqdm(self.indices, "decode", unit="img", leave=False, disable=hidden):
            image, _, bad = self._decoder[index]
            if bad is None:
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

    def _finish(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        images = images.to(self.device, non_blocking=True)
        if self.training and self.settings.augment in ("crop", "crop_flip"):
            images = crop_and_flip(images, images.shape[-1] // 8, self.settings.augment == "crop_flip", rng)
        images = (images.float() - self._mean) / self._std
        return images.contiguous(memory_format=torch.channels_last)


def crop_and_flip(images: Tensor, padding: int, flip: bool, rng: np.random.Generator) -> Tensor:
    """Each image of a batch ``[N, C, H, W]`` shifted by up to ``padding`` pixels (zeros come in), maybe mirrored."""
    n, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, [padding] * 4)
    top, left = (torch.from_numpy(rng.integers(0, 2 * padding + 1, n)) for _ in range(2))
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    if flip:
        mirrored = torch.from_numpy(rng.random(n) < 0.5)
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    which = torch.arange(n, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class _Decoder(Dataset):
    """Index -> (uint8 image [C, H, W], label, None), or the file's name in the last place where it does not decode."""

    def __init__(self, source: Source, transform: Callable, seed: int | None) -> None:
        self.source, self.transform, self.seed = source, transform, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.source.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray | None, int, str | None]:
        try:
            image = self.source.read(int(index))
        except DECODE_ERRORS:
            return None, -1, self.source.name(int(index))
        if self.seed is None:
            pixels = self.transform(image)
        else:
            # timm's random transforms draw from the global generators.
            seeds = np.random.SeedSequence([self.seed, self.epoch, int(index)]).generate_state(1)
            before = _set_random_state(int(seeds[0]))
            pixels = self.transform(image)
            if get_worker_info() is None:
                _restore_random_state(before)
        return np.asarray(pixels), int(self.source.labels[index]), None


def _set_random_state(seed: int) -> tuple:
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return before


def _restore_random_state(state: tuple) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])


def _collate(samples: list) -> tuple[Tensor, Tensor, list[str]]:
    good = [(image, label) for image, label, bad in samples if bad is None]
    images = torch.from_numpy(np.stack([image for image, _ in good])) if good else torch.empty(0)
    return images, torch.tensor([label for _, label in good]), [bad for *_, bad in samples if bad is not None]


def _transform(spec: InputSpec, training: bool) -> Callable:
    return create_transform(
        spec.size,
        is_training=training,
        interpolation="random" if training else spec.interpolation,
        crop_pct=spec.crop_pct,
        crop_mode=spec.crop_mode,
        use_prefetcher=True,  # ends in uint8 [C, H, W]; the loader normalises whole batches
    )
