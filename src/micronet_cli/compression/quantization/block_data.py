"""What a block reads in both networks, and what it gives in float."""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from micronet_cli.compression.quantization.soft_rounding import mixed


class BlockData:
    """The tensors of all images; in memory, or in a file without a name.

    Attributes:
        read: in float and in the quantised network, ``[images, 2, ...]``.
        target: ``[images, ...]``.
        device: of the networks.

    Args:
        images: how many there will be.
        in_memory: bytes that may be held; beyond that everything is in the file.
        directory: where that is; None: the system's own place.
    """

    read: Tensor
    target: Tensor

    def __init__(self, images: int, in_memory: float, directory: Path | None = None) -> None:
        self.images = images
        self._in_memory = in_memory
        self._directory = directory
        self._filled = 0
        self._total = 0.0

    def add(self, in_float: Tensor, quantized: Tensor, target: Tensor) -> None:
        """Take in a batch: what is read in float and in the quantised network, and what is given in float."""
        if self._filled == 0:
            read = torch.stack((in_float, quantized), 1)
            self._allocate(read, target)
        count = len(in_float)
        places = slice(self._filled, self._filled + count)
        self.read[places, 0] = in_float
        self.read[places, 1] = quantized
        self.target[places] = target
        self._filled += count
        self._total += float(target.square().sum())

    def _allocate(self, read: Tensor, given: Tensor) -> None:
        bytes_per_image = read[0].nbytes + given[0].nbytes
        on_disk = bytes_per_image * self.images > self._in_memory
        self.device = read.device
        self.read = self._empty(read, on_disk)
        self.target = self._empty(given, on_disk)

    def _empty(self, like: Tensor, on_disk: bool) -> Tensor:
        shape = (self.images, *like.shape[1:])
        if not on_disk:
            return like.new_empty(shape)
        numpy_type = torch.empty(0, dtype=like.dtype).numpy().dtype
        file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115  lives as long as what is mapped
        mapped = np.memmap(file, numpy_type, "w+", shape=shape)
        return torch.from_numpy(mapped)

    def drawn(self, count: int, drop: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Some images at random: what the block reads, each value in float with probability ``drop``; its target."""
        # Drawn on the CPU, so that every device draws the same.
        chosen = torch.randint(self.images, (count,), generator=generator)
        chosen = chosen.to(self.target.device)
        target = self.target[chosen].to(self.device)
        read = self.read[chosen].to(self.device)
        in_float, quantized = read.unbind(1)
        return mixed(quantized, in_float, drop, generator), target

    def batches(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in order, ``count`` at a time: what the quantised network reads, and the target."""
        reads = self.read.split(count)
        targets = self.target.split(count)
        for read, target in zip(reads, targets, strict=True):
            quantized = read[:, 1]
            yield quantized.to(self.device), target.to(self.device)

    @property
    def size(self) -> float:
        """Mean squared length of an image's target, 1 where that is 0."""
        return self._total / self.images or 1.0

    @property
    def root_mean_square(self) -> float:
        """Of the targets' values."""
        values = self.target[0].numel()
        return math.sqrt(self.size / values)
