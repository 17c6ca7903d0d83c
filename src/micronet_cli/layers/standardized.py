"""Layers that standardise their weight: it is done before mask and quantiser, so that a product sees their result.

Weight standardisation (arXiv 1903.10520) in a layer's own forward would undo a mask and a grid. A compressed layer
standardises in its parametrisation instead, and its forward is the plain convolution.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import timm.layers
import torch
import torch.nn.functional as F
from torch import Tensor, nn

MARK = "standardized"  # the buffer by which a checkpoint says that it was written so

_STANDARDIZING_FORWARDS = (
    timm.layers.StdConv2d.forward,
    timm.layers.StdConv2dSame.forward,
    timm.layers.ScaledStdConv2d.forward,
    timm.layers.ScaledStdConv2dSame.forward,
)
# False while a checkpoint is built whose masks and quantisers come before the standardisation.
_STANDARDIZE_FIRST = ContextVar("_STANDARDIZE_FIRST", default=True)


class Standardization:
    """What a layer makes of its weight before its product: mean 0, variance 1, times its gain, a row.

    Args:
        layer: owns the gain, if there is one; not a submodule of what holds this.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, weight: Tensor) -> Tensor:
        """``[C_out, C_in/groups, kH, kW]``, shape unchanged."""
        gain = None
        if hasattr(self.layer, "gain"):
            scaled = self.layer.gain * self.layer.scale
            gain = scaled.view(-1)
        rows = weight.reshape(1, len(weight), -1)
        standardized = F.batch_norm(
            rows,
            running_mean=None,
            running_var=None,
            weight=gain,
            training=True,
            momentum=0.0,
            eps=self.layer.eps,
        )
        return standardized.reshape_as(weight)


def standardizes(layer: nn.Module) -> bool:
    """Whether the layer's own forward standardises its weight, each output channel by itself."""
    return type(layer).forward in _STANDARDIZING_FORWARDS


def take_standardization(layer: nn.Module) -> Standardization | None:
    """Make the layer a plain convolution, and give what it made of its weight; None where it makes nothing of it."""
    if not standardizes(layer) or not _STANDARDIZE_FIRST.get():
        return None
    make_plain(layer)
    return Standardization(layer)


def make_plain(layer: nn.Module) -> None:
    """Let a layer that standardises its weight compute with the weight as it is."""
    if standardizes(layer):
        pads_as_tensorflow = getattr(layer, "same_pad", False)
        layer.__class__ = timm.layers.Conv2dSame if pads_as_tensorflow else nn.Conv2d


@torch.no_grad()
def standardize_once(model: nn.Module) -> None:
    """Standardise the weights of a network in float now, and not in its layers' own forward."""
    for layer in model.modules():
        if standardizes(layer):
            standardized = Standardization(layer)(layer.weight)
            layer.weight.copy_(standardized)
            make_plain(layer)


@contextmanager
def as_written(names: Iterable[str]) -> Iterator[None]:
    """Attach masks and quantisers as in a checkpoint with tensors of these names.

    Earlier versions put them before the standardisation; such networks go on computing what they did.
    """
    marked = any(name.endswith(f".{MARK}") for name in names)
    token = _STANDARDIZE_FIRST.set(marked)
    try:
        yield
    finally:
        _STANDARDIZE_FIRST.reset(token)
