"""What a convolution's kernel runs over: its input, padded as the layer pads it."""

import timm.layers
import torch.nn.functional as F
from torch import Tensor, nn

from micronet_cli.torch_internals import reversed_padding


def pads_zeros(layer: nn.Module) -> bool:
    """Whether the layer's kernel may run over zeros beside its input."""
    if isinstance(layer, nn.Linear):
        return False
    if isinstance(layer, timm.layers.Conv2dSame):
        return max(layer.kernel_size) > 1
    return layer.padding_mode == "zeros" and any(reversed_padding(layer))


def padded(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """``[N, C, H, W] -> [N, C, H', W']``, of which the layer is the convolution without padding."""
    if isinstance(layer, timm.layers.Conv2dSame):
        # TensorFlow's: as much as the stride asks for at this size, more of it at the end.
        return timm.layers.pad_same(x, layer.kernel_size, layer.stride, layer.dilation)
    padding = reversed_padding(layer)
    if not any(padding):
        return x  # F.pad would copy it
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(x, padding, mode)
