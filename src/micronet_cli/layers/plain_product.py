"""Layers whose forward is the plain product with their weight."""

import timm.layers
from torch import nn

# What follows a layer can be merged with its weight where the output is linear in it: these compute just that.
LINEAR_FORWARDS = (
    nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward, nn.Linear.forward, timm.layers.Conv2dSame.forward,
    timm.layers.Linear.forward,
)  # fmt: skip


def runs_linear(layer: nn.Module) -> bool:
    """Whether the layer's forward is the plain product with its weight."""
    return type(layer).forward in LINEAR_FORWARDS
