"""The moving average of a network that is being pruned."""

import torch
from torch import nn


@torch.no_grad()
def copy_zeros(source: nn.Module, average: nn.Module) -> None:
    """Bring an average's masks up to date, and the parameters that a dropped filter leaves at exactly 0.

    Args:
        source: the network that is trained.
        average: a copy of it whose parameters are an average over steps; changed in place.
    """
    masks = {name: buffer for name, buffer in source.named_buffers() if buffer.dtype == torch.bool}
    for name, buffer in average.named_buffers():
        if name in masks:
            buffer.copy_(masks[name])
    for own, averaged in zip(source.parameters(), average.parameters(), strict=True):
        averaged.mul_(own != 0)
