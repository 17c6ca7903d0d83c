"""Running means of a training interval."""

import time

import torch
from torch import Tensor

from micronet_cli.distributed import sum_over_ranks


class Meter:
    """Mean loss, hits and speed since the last ``take``, over all processes."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start anew."""
        self.loss = 0.0
        self.hits = 0.0
        self.images = 0
        self.started = time.perf_counter()

    def add(self, loss: float, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: ``logits [N, C]``, ``labels`` int64 ``[N]`` or probabilities ``[N, C]``."""
        # A mixed label counts as its likeliest class.
        hard = labels if labels.dim() == 1 else labels.argmax(1)
        predicted = logits.detach().argmax(1)
        self.loss += loss * len(labels)
        self.hits += (predicted == hard).sum().item()
        self.images += len(labels)

    def take(self) -> dict[str, float]:
        """loss, top1 in percent and images_per_second; starts anew."""
        seconds = time.perf_counter() - self.started
        own_sums = torch.tensor([self.loss, self.hits, self.images])
        loss, hits, images = sum_over_ranks(own_sums).tolist()
        self.reset()
        images = max(images, 1)
        return {
            "loss": loss / images,
            "top1": 100 * hits / images,
            "images_per_second": images / seconds,
        }
