"""Augmentation: of one image while it is decoded (timm's transforms), and of whole batches on the device."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from timm.data import Mixup, create_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from micronet_cli.data.randomness import global_rng_at, rng_at
from micronet_cli.models.model import InputSpec

Augment = Literal["none", "crop", "crop_flip", "imagenet"]


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images.

    Attributes:
        kind: ``none``; ``crop``: shift by up to an eighth of the side; ``crop_flip``: and mirror; ``imagenet``: random
            resized crop, mirror and colour jitter of the undecoded size, as timm does them.
        auto_augment: timm's policy string, as ``rand-m9-mstd0.5-inc1`` (RandAugment, arXiv 1909.13719).
        color_jitter: strength, with ``imagenet``.
        random_erasing: probability (arXiv 1708.04896).
        mixup, cutmix: alpha of the mixing distribution (arXiv 1710.09412, 1905.04899); 0: off.
    """

    kind: Augment = "none"
    auto_augment: str | None = None
    color_jitter: float = 0.4
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        try:
            create_transform(32, is_training=True, auto_augment=self.auto_augment)
        except (AssertionError, IndexError, KeyError, ValueError):
            raise ValueError(f"auto_augment={self.auto_augment!r}: timm knows no such policy") from None

    @property
    def per_image(self) -> bool:
        """Whether images change while they are decoded, so that decoded ones cannot be kept."""
        return self.kind == "imagenet" or self.auto_augment is not None

    def timm(self, spec: InputSpec) -> dict[str, Any]:
        """Arguments of timm's training transform, where images change while they are decoded."""
        sized = self.kind == "imagenet"
        return {
            "interpolation": "random" if sized else spec.interpolation,
            "auto_augment": self.auto_augment,
            "color_jitter": self.color_jitter if sized else None,
            "scale": (0.08, 1.0) if sized else (1.0, 1.0),
            "ratio": (3 / 4, 4 / 3) if sized else (1.0, 1.0),
            "hflip": 0.5 if sized else 0.0,  # crop_flip mirrors whole batches
        }

    def batch(self, images: Tensor, labels: Tensor, classes: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Erase and mix a normalised batch; mixed labels are probabilities ``[N, classes]``."""
        if not (self.random_erasing or self.mixup or self.cutmix):
            return images, labels
        with global_rng_at(*seed):
            if self.random_erasing:
                images = RandomErasing(self.random_erasing, mode="pixel", device=images.device)(images)
            if (self.mixup or self.cutmix) and len(images) > 1:
                mix = Mixup(self.mixup, self.cutmix, label_smoothing=0.0, num_classes=classes)
                odd = len(images) % 2  # images are mixed in pairs
                images, labels = mix(images[odd:], labels[odd:])
        return images, labels


def image_transform(spec: InputSpec, augmentation: Augmentation | None) -> Callable:
    """PIL image -> uint8 array ``[C, H, W]``: the network's evaluation transform, or timm's training one."""
    training: dict[str, Any] = {}
    if augmentation is not None and augmentation.per_image:
        training = {"is_training": True} | augmentation.timm(spec)
    return create_transform(
        spec.size,
        **{"interpolation": spec.interpolation, "crop_pct": spec.crop_pct, "crop_mode": spec.crop_mode} | training,
        use_prefetcher=True,  # ends in uint8; the loader normalises whole batches
    )


def crop_and_flip(images: Tensor, which: np.ndarray, flip: bool, seed: tuple[int, ...]) -> Tensor:
    """Each image ``[N, H, W, C]`` shifted by up to an eighth of its side (zeros come in), maybe mirrored.

    Args:
        images: some images of a batch.
        which: their places in the whole batch, so that a part of it gets the choices it gets in the whole.
        flip: mirror half of them.
        seed: the batch's position.
    """
    n, height, width, _ = images.shape
    padding, places = width // 8, int(which.max(initial=0)) + 1
    padded = torch.nn.functional.pad(images, [0, 0] + [padding] * 4)
    top, left = (_draw(seed, axis, places, 2 * padding + 1)[which] for axis in (0, 1))
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    if flip:
        columns = torch.where(_draw(seed, 2, places, 2)[which][:, None] == 1, columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    image = torch.arange(n, device=images.device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]]


def _draw(seed: tuple[int, ...], stream: int, count: int, below: int) -> Tensor:
    return torch.from_numpy(rng_at(*seed, stream).integers(0, below, count))
