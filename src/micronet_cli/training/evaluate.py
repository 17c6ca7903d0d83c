"""Evaluation: every image once."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from micronet_cli.data.loader import Loader
from micronet_cli.distributed import rank, sum_over_ranks
from micronet_cli.errors import UserError

Amp = Literal["none", "bf16", "fp16"]


@dataclass(frozen=True)
class Evaluation:
    """The ``eval`` config group.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        amp: reduced precision by torch.amp.
    """

    split: Literal["train", "val", "test"] = "test"
    amp: Amp = "none"


def autocast(amp: Amp, device: torch.device) -> AbstractContextManager:
    """torch.amp's context for ``amp``; ``none`` does nothing."""
    kind = torch.bfloat16 if amp == "bf16" else torch.float16
    return torch.autocast(device.type, kind, enabled=amp != "none")


@torch.inference_mode()
def evaluate(model: nn.Module, loader: Loader, amp: Amp = "none", forward: Callable | None = None) -> dict[str, Any]:
    """top1 and top5 in percent, mean cross-entropy ``loss``, ``images`` counted and ``images_per_second``.

    The model is in evaluation mode meanwhile and returns to the mode it had. ``forward`` computes in its place (a
    compiled copy).

    Raises:
        UserError: there was no image.
    """
    was_training = model.training
    model.eval()
    forward = forward or model
    device = loader.device
    loss, hits1, hits5 = (torch.zeros((), dtype=torch.float64, device=device) for _ in range(3))
    images_seen, started = 0, time.perf_counter()
    hidden = None if rank() == 0 else True
    for images, labels in tqdm(loader.batches(), "evaluate", len(loader), unit="batch", leave=False, disable=hidden):
        with autocast(amp, device):
            logits = forward(images)
        logits = logits.float()
        loss += F.cross_entropy(logits, labels, reduction="sum")
        hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        hits1 += hits[:, 0].sum()
        hits5 += hits.sum()
        images_seen += len(labels)
    model.train(was_training)
    sums = sum_over_ranks(torch.stack([loss, hits1, hits5, loss.new_tensor(images_seen)])).tolist()
    seconds = time.perf_counter() - started  # now that a GPU has been waited for
    images_seen = int(sums[3])
    if not images_seen:
        raise UserError("data: not one image could be read")
    return {
        "top1": 100 * sums[1] / images_seen,
        "top5": 100 * sums[2] / images_seen,
        "loss": sums[0] / images_seen,
        "images": images_seen,
        "images_per_second": images_seen / seconds,
    }
