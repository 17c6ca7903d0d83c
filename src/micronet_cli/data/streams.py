"""Data that comes as a stream or from a hub: WebDataset shards and Hugging Face data sets, through timm.

Order and augmentation follow timm's own worker seeds: a resumed run sees the rest of its epoch, though not the very
batches that an uninterrupted one would have seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from timm.data import create_dataset, create_loader
from torch import Tensor

from micronet_cli.data.augment import Augment
from micronet_cli.data.datasets import Data
from micronet_cli.data.loader import LoaderSettings
from micronet_cli.distributed import rank, world_size
from micronet_cli.errors import UserError
from micronet_cli.models.model import InputSpec


@dataclass(kw_only=True)
class TimmStream(Data):
    """A data set by timm's name for it.

    Attributes:
        dataset: ``wds/`` for WebDataset shards; ``hfds/<name>`` or, streaming, ``hfids/<name>`` for Hugging Face's.
        root: directory of the shards, or of the hub's cache.
        train, val, test: split names; for WebDataset shard patterns, as ``train-{0000..0099}.tar``.
        samples: images in a split, by its name above; a stream cannot count itself.
        num_classes: classes of the labels ``0 .. num_classes - 1``.
    """

    dataset: str
    root: str
    train: str | None = None
    val: str | None = None
    test: str | None = None
    samples: dict[str, int] = field(default_factory=dict)
    num_classes: int
    augment: Augment = "imagenet"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augment not in ("none", "imagenet"):
            raise ValueError(f"augment={self.augment}: must be none or imagenet for a stream")

    def problems(self, splits: Sequence[str]) -> list[str]:
        """Splits that are not given."""
        return [f"data.{s}: missing; give data.{s}=<split or shards>" for s in splits if getattr(self, s) is None]

    @property
    def classes(self) -> list[str]:
        """The labels as text: streams do not tell names."""
        return [str(label) for label in range(self.num_classes)]

    def loader(
        self, split: str, spec: InputSpec, device: torch.device, seed: int = 0, classes: Sequence[str] | None = None
    ) -> Any:
        """Batches of a split, shuffled and augmented for ``train``.

        Raises:
            UserError: the split cannot be opened.
        """
        if problems := self.problems([split]):
            raise UserError(problems[0])
        training = split == "train"
        batch = self.batch_size if training else self.eval_batch_size
        try:
            dataset = create_dataset(
                self.dataset,
                root=self.root,
                split=getattr(self, split),
                is_training=training,
                batch_size=batch // world_size(),
                num_samples=self.samples.get(split),
                seed=seed,
            )
        except Exception as error:  # every backend has errors of its own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"data.{split}={getattr(self, split)!r}: {self.dataset} does not open it ({reason})"
            ) from None
        settings = LoaderSettings(batch_size=batch, workers=self.workers, seed=seed, augmentation=self.augmentation)
        return StreamLoader(dataset, spec, settings, training, device, self.num_classes)


class StreamLoader:
    """The same face as ``data.loader.Loader``, over timm's ``create_loader``."""

    def __init__(
        self,
        dataset: Any,
        spec: InputSpec,
        settings: LoaderSettings,
        training: bool,
        device: torch.device,
        classes: int,
    ) -> None:
        self.dataset, self.settings, self.training, self.device, self.classes = (
            dataset, settings, training, device, classes,
        )  # fmt: skip
        self.corrupt: list[str] = []
        changes = settings.augmentation.timm(spec) if training and settings.augmentation.per_image else None
        self.loader = create_loader(
            dataset,
            spec.size,
            settings.batch_size // world_size(),
            is_training=training,
            no_aug=training and changes is None,
            **(changes or {"interpolation": spec.interpolation}),
            mean=spec.mean,
            std=spec.std,
            crop_pct=spec.crop_pct,
            crop_mode=spec.crop_mode,
            num_workers=1 if settings.workers is None else settings.workers,
            distributed=world_size() > 1,
            device=device,
            pin_memory=device.type == "cuda",
            persistent_workers=bool(settings.workers is None or settings.workers),
        )

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.loader)

    @property
    def images(self) -> int:
        """Images an epoch."""
        return len(self.dataset)

    def visited(self, images: int) -> list[int]:
        """As ``Loader.visited``; the images of a stream are numbered as they come."""
        return [rank() + number * world_size() for number in range(images)]

    def name(self, index: int) -> str:
        """What to call an image."""
        return f"image {index}"

    def picture(self, index: int) -> None:
        """None: a stream does not go back."""

    def batches(self, epoch: int = 0, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """``(images, labels)`` as ``Loader.batches`` gives them, the first batches dropped."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        for number, (images, labels) in enumerate(islice(self.loader, first, None), first):
            images = images.contiguous(memory_format=torch.channels_last)
            if self.training:
                seed = (self.settings.seed, epoch, number, rank())
                images, labels = self.settings.augmentation.batch(images, labels, self.classes, seed)
            yield images, labels
