"""Running means of a training interval."""

import math
import time

import torch
from torch import Tensor

from micronet_cli.distributed import sum_over_ranks


class LossesNotFinite(ValueError):
    """Some losses of an interval are not finite, in one process or more; every process raises it."""


class Meter:
    """Mean loss, hits and speed since the last ``take``, over all processes.

    What is counted stays on the device until then, so that no batch waits for it.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start anew."""
        self.losses: list[Tensor] = []
        self.hits: list[Tensor] = []
        self.images: list[int] = []
        self.started = time.perf_counter()

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: ``loss []``, ``logits [N, C]``, ``labels`` int64 ``[N]`` or probabilities ``[N, C]``."""
        # A mixed label counts as its likeliest class.
        hard = labels if labels.dim() == 1 else labels.argmax(1)
        predicted = logits.detach().argmax(1)
        is_hit = predicted == hard
        self.losses.append(loss.detach())
        self.hits.append(is_hit.sum(dtype=torch.float32))
        self.images.append(len(labels))

    def take(self) -> dict[str, float]:
        """loss, top1 in percent and images_per_second; starts anew.

        Raises:
            LossesNotFinite: the loss of a batch is not, in any process.
        """
        own_sums = self._read()
        seconds = time.perf_counter() - self.started
        loss, hits, images, not_finite = sum_over_ranks(own_sums).tolist()
        self.reset()
        if not_finite:
            raise LossesNotFinite
        images = max(images, 1)
        return {
            "loss": loss / images,
            "top1": 100 * hits / images,
            "images_per_second": images / seconds,
        }

    def _read(self) -> Tensor:
        """Loss and hits over all images, images, losses that are not finite: this process's ``[4]``, on the device."""
        if not self.losses:
            return torch.zeros(4)
        device = self.losses[0].device
        # The only place where a training step's device is waited for, once an interval.
        values = torch.stack([*self.losses, *self.hits]).tolist()
        losses = values[: len(self.losses)]
        hits = values[len(self.losses) :]
        loss_sum = 0.0
        not_finite = 0
        for loss, images in zip(losses, self.images, strict=True):
            loss_sum += loss * images
            not_finite += not math.isfinite(loss)
        return torch.tensor([loss_sum, sum(hits), sum(self.images), not_finite], device=device)
