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
    buffers = dict(source.named_buffers())
    for name, buffer in average.named_buffers():
        is_mask = buffer.dtype == torch.bool
        if is_mask:
            buffer.copy_(buffers[name])
    pairs = zip(source.parameters(), average.parameters(), strict=True)
    for own, averaged in pairs:
        is_nonzero = own != 0
        averaged.mul_(is_nonzero)
