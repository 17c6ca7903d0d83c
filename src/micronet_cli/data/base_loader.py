"""What all loaders do with decoded images: augment and normalise whole batches, count and name what is left out."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from micronet_cli.data.augment import Augmentation, Batch, crop_and_flip, image_transform
from micronet_cli.data.decoding import DecodedBatch, Decoder
from micronet_cli.data.images import MODE_OF_CHANNELS
from micronet_cli.data.randomness import Position
from micronet_cli.distributed import rank, world_size
from micronet_cli.errors import UserError
from micronet_cli.models.model import InputSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoaderSettings:
    """How to load; see ``data.base.Data``. ``batch_size`` is the sum over all processes."""

    batch_size: int
    workers: int | None = None
    cache_mb: int = 1024
    max_corrupt: int = 10
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(kw_only=True)
class BaseLoader:
    """One split's batches.

    Attributes:
        spec: what the network takes.
        settings: batch size and the like.
        training: shuffle, augment and drop the last partial batch.
        device: where batches go.
        classes: number of them.
        where: the config path that mistakes are reported under.
        corrupt: names of the files that did not decode.
        decoder: from a file to the network's input.
    """

    spec: InputSpec
    settings: LoaderSettings
    training: bool
    device: torch.device
    classes: int
    where: str = "data"

    def __post_init__(self) -> None:
        self.corrupt: list[str] = []
        self._mean = self._row_of(self.spec.mean)
        self._std = self._row_of(self.spec.std)
        augmentation = self.settings.augmentation if self.training else None
        channels = self.spec.size[0]
        check_channels(channels, augmentation)
        self.decoder = Decoder(
            image_transform(self.spec, augmentation),
            channels,
            self.settings.seed,
            random=augmentation is not None and augmentation.per_image,
        )

    @property
    def batch_size(self) -> int:
        """Images a batch, over all processes."""
        return self.settings.batch_size

    def _row_of(self, channels: tuple[float, ...]) -> Tensor:
        """One value a channel, in [0, 1], for a whole row of uint8 pixels.

        A row's worth: broadcasting over three channels would be seven times slower.
        """
        values = torch.tensor(channels, device=self.device).mul(255)
        width = self.spec.size[2]
        return values.repeat(width)

    def __len__(self) -> int:
        """Batches an epoch."""
        full, rest = divmod(self.images, self.batch_size)
        if rest == 0:
            return full
        # Training leaves the partial batch out, unless there is no other.
        if self.training and full > 0:
            return full
        return full + 1

    @property
    def images(self) -> int:
        """Images an epoch, corrupt ones that are known left out."""
        raise NotImplementedError

    def batches(self, epoch: int = 0, first: int = 0) -> Iterator[Batch]:
        """This process's part of every batch from number ``first`` on.

        Yields:
            images float ``[N, C, H, W]`` normalised; labels int64 ``[N]``, or probabilities ``[N, classes]`` if mixed.

        Raises:
            UserError: more files than ``max_corrupt`` did not decode, a whole training batch did not, or one holds
                what the network cannot take.
        """
        for number, batch in enumerate(self.fetch(epoch, first), first):
            if batch.mistakes:
                raise UserError(f"{self.where}: {batch.mistakes[0]}")
            self.note_corrupt(batch.corrupt)
            images = batch.images.to(self.device, non_blocking=True)
            labels = batch.labels.to(self.device, non_blocking=True)
            if self.training:
                places = np.asarray(batch.places)
                if len(labels) == 1 and len(batch.corrupt) > 0:
                    # BatchNorm cannot take statistics of one image, and other processes wait for this batch.
                    images = images.repeat(2, 1, 1, 1)
                    labels = labels.repeat(2)
                    places = places.repeat(2)
                places_in_whole = places * world_size() + rank()
                position = (self.settings.seed, epoch, number)
                yield self._augmented(images, labels, places_in_whole, position)
            elif len(labels) > 0:
                yield self._normalise(images), labels

    def fetch(self, epoch: int, first: int) -> Iterator[DecodedBatch]:
        """The decoded images of this process's part of every batch from number ``first`` on."""
        raise NotImplementedError

    def _augmented(self, images: Tensor, labels: Tensor, places: np.ndarray, position: Position) -> Batch:
        if len(labels) == 0:
            raise UserError(f"{self.where}: none of the {self.batch_size} files of a batch decodes")
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

    def note_corrupt(self, names: Sequence[str]) -> None:
        """Count and name files that did not decode.

        Raises:
            UserError: they are more than ``max_corrupt``.
        """
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


def check_channels(channels: int, augmentation: Augmentation | None) -> None:
    """Whether image files have so many channels, and what is switched on can change them.

    Raises:
        UserError: they have not, or it cannot.
    """
    if channels not in MODE_OF_CHANNELS:
        raise UserError(
            f"model.args.in_chans={channels}: image files have 1 (grey), 2 (grey and alpha), 3 (colour) "
            "or 4 channels (colour and alpha)"
        )
    policy = None if augmentation is None else augmentation.auto_augment
    if policy is not None and channels != 3:
        raise UserError(
            f"data.auto_augment={policy!r}: it changes images of 3 channels and the network takes {channels}; "
            "leave it null"
        )
