"""What the peers share: their command line, the same pixels, the logits that are written.

Runs in a peer's own environment: torch, timm, safetensors, and of micronet the CIFAR ResNet, which needs no more.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peers.plain_network import plain_network
from safetensors.torch import load_file
from torch import Tensor, nn

BATCH = 32


@dataclass(frozen=True)
class Job:
    """What a peer gets.

    Attributes:
        model: in float, in evaluation mode; of plain layers of PyTorch.
        images: to calibrate with, ``[N, 3, H, W]``.
        labels: theirs; most flows need none.
        weight_bits, activation_bits: of every layer but the stem.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    weight_bits: int
    activation_bits: int

    @property
    def batches(self) -> list[Tensor]:
        """The images, ``BATCH`` at a time."""
        return list(self.images.split(BATCH))

    @property
    def stem(self) -> str:
        """Name of the first convolution."""
        return next(name for name, module in self.model.named_modules() if isinstance(module, nn.Conv2d))


def run(quantise: Callable[[Job], nn.Module]) -> None:
    """Quantise as the command line says, and write the logits of the images to evaluate."""
    parser = argparse.ArgumentParser(description=run.__doc__)
    for name in ("model", "weights", "calibrate", "evaluate"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("weight-bits", "activation-bits", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--logits", type=Path, required=True)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    np.random.seed(given.seed)
    calibration = load_file(given.calibrate)
    model = plain_network(given.model, given.weights, calibration["images"][:2])
    job = Job(model, calibration["images"], calibration["labels"], given.weight_bits, given.activation_bits)
    quantised = quantise(job).eval()
    images = load_file(given.evaluate)["images"]
    with torch.no_grad():
        logits = torch.cat([quantised(batch) for batch in images.split(BATCH)])
    np.save(given.logits, logits.numpy())
