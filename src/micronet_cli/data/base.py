"""What the packaged data sets share: batch sizes, augmentation, and loaders of images that are read in any order."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from micronet_cli.data.augment import Augment, Augmentation
from micronet_cli.data.base_loader import LoaderSettings
from micronet_cli.data.class_names import read_class_names
from micronet_cli.data.eval_batch import images_together
from micronet_cli.data.loader import Loader
from micronet_cli.data.protocol import Batches
from micronet_cli.data.sources import Source, Subset, relabelled, split_off
from micronet_cli.errors import UserError
from micronet_cli.models.model import InputSpec


@dataclass(kw_only=True)
class Data:
    """What the packaged data sets share, a ``protocol.DataSet``; one's own adds ``source`` and ``own_class_names``.

    Attributes:
        batch_size: images a training step, over all processes.
        eval_batch_size: images an evaluation's step, over all processes; ``auto``: as many as ``images_together`` says.
        workers: decoding processes; null: one a core. Splits held in memory need none.
        augment, auto_augment, color_jitter, random_erasing, mixup, cutmix: see ``data.augment.Augmentation``.
        input_size: height and width in pixels; null: the network's.
        classes: the names of the network's outputs, of which the data may hold some: ``imagenet``, or a file with a
            name a line; null: the data's own.
        mean, std: a number a channel, of values in [0, 1], for a network that states no input; null: ImageNet's.
        cache_mb: a split that fits into so much memory once decoded is decoded once, in MiB.
        max_corrupt: a split may hold so many files that do not decode; they are skipped and named in the log.
        val_fraction: part of train that becomes val where there is no val of its own, in (0, 1).
        split_seed: draws that part.
    """

    batch_size: int = 128
    eval_batch_size: int | Literal["auto"] = "auto"
    workers: int | None = None
    augment: Augment = "crop_flip"
    auto_augment: str | None = None
    color_jitter: float = 0.4
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    input_size: int | None = None
    classes: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    cache_mb: int = 1024
    max_corrupt: int = 10
    val_fraction: float = 0.1
    split_seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}: must be at least 1")
        if self.eval_batch_size != "auto" and self.eval_batch_size < 1:
            raise ValueError(f"eval_batch_size={self.eval_batch_size}: must be at least 1, or auto")
        if self.batch_size % 2 and (self.mixup or self.cutmix):
            raise ValueError(f"batch_size={self.batch_size}: must be even for mixup and cutmix")
        if not 0 <= self.random_erasing <= 1:
            raise ValueError(f"random_erasing={self.random_erasing}: must be a probability in [0, 1]")
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"mean={self.mean}: must be given together with std={self.std}")
        if self.std is not None and min(self.std, default=0) <= 0:
            raise ValueError(f"std={self.std}: must be above 0")
        _ = self.augmentation  # checks its part
        if not 0 < self.val_fraction < 1:
            raise ValueError(f"val_fraction={self.val_fraction}: must be a fraction in (0, 1)")

    def problems(self, splits: Sequence[str]) -> list[str]:
        """What is missing of these splits, without opening them: a line a problem."""
        return []

    def source(self, split: str) -> Source:
        """The images of ``train``, ``val`` or ``test``; their labels are indices of ``label_names(split)``."""
        raise self._lacking("source(split)")

    @property
    def own_class_names(self) -> list[str]:
        """Class names of the data itself, in the order of their indices."""
        raise self._lacking("own_class_names")

    def _lacking(self, member: str) -> UserError:
        kind = type(self)
        return UserError(f"data: {kind.__module__}.{kind.__qualname__} must have {member}; see docs/extending.md")

    def label_names(self, split: str) -> list[str]:
        """The class names that a split's labels are indices of."""
        return self.own_class_names

    @property
    def class_names(self) -> list[str]:
        """Class names in the order of a network's outputs.

        Raises:
            UserError: ``classes`` is no list of names, or the data cannot be opened to tell its own.
        """
        return self.own_class_names if self.classes is None else self._given_class_names

    @cached_property
    def _given_class_names(self) -> list[str]:
        assert self.classes is not None
        return read_class_names(self.classes)

    def labelled(self, split: str, classes: Sequence[str] | None = None) -> Source:
        """The images of a split, labelled by the outputs of a network.

        Args:
            split: ``train``, ``val`` or ``test``.
            classes: names in the order that the network knows them; None: ``class_names``.

        Raises:
            UserError: an image is of a class that the network does not know.
        """
        names = classes or self.class_names
        return relabelled(self.source(split), self.label_names(split), names, self._where(split))

    def _where(self, split: str) -> str:
        """The split's place in the config, with what is given there."""
        given = getattr(self, split, None)
        return f"data.{split}" if given is None else f"data.{split}={given!r}"

    @property
    def augmentation(self) -> Augmentation:
        """What happens to training images."""
        return Augmentation(
            self.augment, self.auto_augment, self.color_jitter, self.random_erasing, self.mixup, self.cutmix
        )

    def loader(
        self,
        split: str,
        spec: InputSpec,
        device: torch.device,
        seed: int = 0,
        classes: Sequence[str] | None = None,
    ) -> Batches:
        """Batches of a split, shuffled and augmented for ``train``."""
        return Loader(
            source=self.labelled(split, classes),
            spec=spec,
            settings=self.loader_settings(split == "train", seed, spec, device),
            training=split == "train",
            device=device,
            classes=len(classes or self.class_names),
            where=f"data.{split}",
        )

    def sample(
        self,
        split: str,
        images: int,
        spec: InputSpec,
        device: torch.device,
        seed: int = 0,
        classes: Sequence[str] | None = None,
    ) -> Batches:
        """Batches of at most so many images of a split, drawn by ``seed``, as evaluation sees them."""
        source = self.labelled(split, classes)
        order = np.random.default_rng(seed).permutation(len(source.labels))
        chosen = np.sort(order[:images])
        return Loader(
            source=Subset(source, chosen),
            spec=spec,
            settings=self.loader_settings(False, seed, spec, device),
            training=False,
            device=device,
            classes=len(classes or self.class_names),
            where=f"data.{split}",
        )

    def loader_settings(self, training: bool, seed: int, spec: InputSpec, device: torch.device) -> LoaderSettings:
        """The settings of one split's loader."""
        batch_size = self.batch_size
        if not training:
            batch_size = self._evaluated_together(spec, device)
        return LoaderSettings(
            batch_size=batch_size,
            workers=self.workers,
            cache_mb=self.cache_mb,
            max_corrupt=self.max_corrupt,
            seed=seed,
            augmentation=self.augmentation,
        )

    def _evaluated_together(self, spec: InputSpec, device: torch.device) -> int:
        if self.eval_batch_size == "auto":
            return images_together(spec, device)
        return self.eval_batch_size

    def _part(self, whole: Source, split: str) -> Source:
        """``train`` or ``val``, of images that hold both."""
        train, val = split_off(whole, self.val_fraction, self.split_seed)
        return val if split == "val" else train
