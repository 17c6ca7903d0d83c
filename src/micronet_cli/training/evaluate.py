"""Evaluation: every image once."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from micronet_cli.data.protocol import Batches
from micronet_cli.distributed import rank, sum_over_ranks
from micronet_cli.errors import UserError

Amp = Literal["none", "bf16", "fp16"]


@dataclass(frozen=True)
class Evaluation:
    """The ``eval`` config group.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        amp: reduced precision by torch.amp.
        pictures: of the most confident mistakes that ``stage=eval`` shows.
        against: a run that ``stage=eval`` compares with, image by image.
    """

    split: Literal["train", "val", "test"] = "test"
    amp: Amp = "none"
    pictures: int = 36
    against: str | None = None

    def __post_init__(self) -> None:
        if self.pictures < 0:
            raise ValueError(f"pictures={self.pictures}: must be at least 0")


def autocast(amp: Amp, device: torch.device) -> AbstractContextManager:
    """torch.amp's context for ``amp``; ``none`` does nothing."""
    kind = torch.bfloat16 if amp == "bf16" else torch.float16
    return torch.autocast(device.type, kind, enabled=amp != "none")


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Batches,
    amp: Amp = "none",
    forward: Callable | None = None,
    watch: Callable[[Tensor, Tensor], None] | None = None,
) -> dict[str, Any]:
    """top1 and top5 in percent, mean cross-entropy ``loss``, ``images`` counted and ``images_per_second``.

    The model is in evaluation mode meanwhile and returns to the mode it had afterwards.

    Args:
        model: ``images [N, C, H, W] -> logits [N, classes]``.
        loader: the images; every one is counted once.
        amp: reduced precision by torch.amp.
        forward: what computes in the model's place, as a compiled copy of it.
        watch: called with every batch's logits and labels.

    Raises:
        UserError: there was no image.
    """
    was_training = model.training
    model.eval()
    forward = forward or model
    device = loader.device
    # Sums stay on the device, so that no batch waits for a GPU.
    loss = torch.zeros((), dtype=torch.float64, device=device)
    hits1 = torch.zeros_like(loss)
    hits5 = torch.zeros_like(loss)
    images_seen = 0
    started = time.perf_counter()
    hidden = None if rank() == 0 else True
    batches = tqdm(loader.batches(), "evaluate", len(loader), unit="batch", leave=False, disable=hidden)
    for images, labels in batches:
        with autocast(amp, device):
            logits = forward(images)
        logits = logits.float()
        if watch is not None:
            watch(logits, labels)
        loss += F.cross_entropy(logits, labels, reduction="sum")
        likeliest = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hits = likeliest == labels[:, None]
        hits1 += hits[:, 0].sum()
        hits5 += hits.sum()
        images_seen += len(labels)
    model.train(was_training)
    own_sums = torch.stack([loss, hits1, hits5, loss.new_tensor(images_seen)])
    total_loss, total_hits1, total_hits5, total_images = sum_over_ranks(own_sums).tolist()
    seconds = time.perf_counter() - started  # now that a GPU has been waited for
    if not total_images:
        raise UserError("data: not one image could be read")
    return {
        "top1": 100 * total_hits1 / total_images,
        "top5": 100 * total_hits5 / total_images,
        "loss": total_loss / total_images,
        "images": int(total_images),
        "images_per_second": total_images / seconds,
    }
