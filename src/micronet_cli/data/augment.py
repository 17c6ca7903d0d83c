"""Augmentation: of one image while it is decoded (timm's transforms), and of whole batches on the device."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from timm.data import Mixup, create_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from micronet_cli.data.randomness import Position, global_rng_at, rng_at
from micronet_cli.models.model import InputSpec

Augment = Literal["none", "crop", "crop_flip", "imagenet"]
Batch = tuple[Tensor, Tensor]


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

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed, so that labels become probabilities."""
        return self.mixup != 0 or self.cutmix != 0

    def timm(self, spec: InputSpec) -> dict[str, Any]:
        """Arguments of timm's training transform, where images change while they are decoded."""
        arguments: dict[str, Any] = {
            "interpolation": spec.interpolation,
            "auto_augment": self.auto_augment,
            "color_jitter": None,
            "scale": (1.0, 1.0),
            "ratio": (1.0, 1.0),
            "hflip": 0.0,  # crop_flip mirrors whole batches
        }
        if self.kind == "imagenet":
            arguments["interpolation"] = "random"
            arguments["color_jitter"] = self.color_jitter
            arguments["scale"] = (0.08, 1.0)
            arguments["ratio"] = (3 / 4, 4 / 3)
            arguments["hflip"] = 0.5
        return arguments

    def batch(self, images: Tensor, labels: Tensor, classes: int, seed: Position) -> Batch:
        """Erase and mix a normalised batch; mixed labels are probabilities ``[N, classes]``."""
        erases = self.random_erasing != 0
        if not erases and not self.mixes:
            return images, labels
        with global_rng_at(*seed):
            if erases:
                erase = RandomErasing(self.random_erasing, mode="pixel", device=images.device)
                images = erase(images)
            if self.mixes and len(images) > 1:
                images, labels = self._mix(images, labels, classes)
        return images, labels

    def _mix(self, images: Tensor, labels: Tensor, classes: int) -> Batch:
        mix = Mixup(self.mixup, self.cutmix, label_smoothing=0.0, num_classes=classes)
        # Images are mixed in pairs: of an odd number the first one is left out.
        if len(images) % 2 == 1:
            images = images[1:]
            labels = labels[1:]
        return mix(images, labels)


def image_transform(spec: InputSpec, augmentation: Augmentation | None) -> Callable:
    """PIL image -> uint8 array ``[C, H, W]``: the network's evaluation transform, or timm's training one."""
    arguments: dict[str, Any] = {
        "interpolation": spec.interpolation,
        "crop_pct": spec.crop_pct,
        "crop_mode": spec.crop_mode,
    }
    if augmentation is not None and augmentation.per_image:
        arguments["is_training"] = True
        arguments |= augmentation.timm(spec)
    # With use_prefetcher it ends in uint8; the loader normalises whole batches.
    return create_transform(spec.size, use_prefetcher=True, **arguments)


def crop_and_flip(images: Tensor, which: np.ndarray, flip: bool, seed: Position) -> Tensor:
    """Each image ``[N, H, W, C]`` shifted by up to an eighth of its side (zeros come in), maybe mirrored.

    Args:
        images: some images of a batch.
        which: their places in the whole batch, so that a part of it gets the choices it gets in the whole.
        flip: mirror half of them.
        seed: the batch's position.
    """
    count, height, width, _ = images.shape
    device = images.device
    padding = width // 8
    around = (0, 0, padding, padding, padding, padding)
    padded = torch.nn.functional.pad(images, around)

    # Choices are drawn for the whole batch, as far as it is known, and taken from there.
    places = int(which.max(initial=0)) + 1
    shifts = 2 * padding + 1
    top = _draw(seed, 0, places, shifts)[which]
    left = _draw(seed, 1, places, shifts)[which]
    rows = top.unsqueeze(1) + torch.arange(height)
    columns = left.unsqueeze(1) + torch.arange(width)
    if flip:
        is_mirrored = _draw(seed, 2, places, 2)[which] == 1
        mirrored = columns.flip(1)
        columns = torch.where(is_mirrored.unsqueeze(1), mirrored, columns)

    # Broadcast to [N, H, W]: where each pixel of each image comes from.
    image = torch.arange(count, device=device).view(-1, 1, 1)
    row = rows.to(device, non_blocking=True).unsqueeze(2)
    column = columns.to(device, non_blocking=True).unsqueeze(1)
    return padded[image, row, column]


def _draw(seed: tuple[int, ...], stream: int, count: int, below: int) -> Tensor:
    generator = rng_at(*seed, stream)
    numbers = generator.integers(0, below, count)
    return torch.from_numpy(numbers)
