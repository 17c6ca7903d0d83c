"""A layer's output behind its bias and BatchNorm, as functions of its sums of products."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from micronet_cli.compression.quantization.equalization import batch_norm_of
from micronet_cli.layers.batch_norm import gain_and_shift
from micronet_cli.trace.chains import Chain


@dataclass(frozen=True)
class Affine:
    """What bias and BatchNorm make of a layer's products ``[C_out, n]``.

    Attributes:
        gain, shift: ``[C_out, 1]``, or ``[1, 1]`` where they are 1 and 0.
    """

    gain: Tensor
    shift: Tensor

    def __call__(self, products: Tensor) -> Tensor:
        """Shape unchanged."""
        return products * self.gain + self.shift


def normalised(model: nn.Module, chain: Chain) -> Affine:
    """A layer's bias and BatchNorm, as they are now."""
    layer = model.get_submodule(chain.layer)
    norm = batch_norm_of(model, chain)
    gain = torch.ones(())
    shift = torch.zeros(())
    if norm is not None:
        gain, shift = gain_and_shift(norm)
    bias = torch.zeros(())
    if layer.bias is not None:
        bias = layer.bias.detach()
    device = layer.weight.device
    dtype = layer.weight.dtype
    gain = gain.to(device, dtype)
    bias = bias.to(device)
    shift = shift.to(device)
    # The BatchNorm's shift is float64, and so is the sum until it is rounded once.
    shift = shift + bias * gain
    shift = shift.to(dtype)
    return Affine(gain.view(-1, 1), shift.view(-1, 1))


def can_be_shifted(model: nn.Module, chain: Chain) -> bool:
    """Whether ``shift_output`` finds something that takes the change."""
    layer = model.get_submodule(chain.layer)
    return layer.bias is not None or batch_norm_of(model, chain) is not None


def shift_output(model: nn.Module, chain: Chain, change: Tensor) -> None:
    """Add ``change`` ``[C_out]`` to what a layer and its BatchNorm give.

    The layer's bias takes it, or else the BatchNorm's running mean; a layer that has neither stays as it is. A channel
    that the BatchNorm multiplies by 0, or nearly so, cannot be changed from there.
    """
    layer = model.get_submodule(chain.layer)
    norm = batch_norm_of(model, chain)
    if norm is not None:
        gain, _ = gain_and_shift(norm)
        gain = gain.to(change.dtype)
        is_nonzero = gain != 0
        divisor = torch.where(is_nonzero, gain, 1)
        divided = change / divisor
        reaches_output = is_nonzero & divided.isfinite()
        change = torch.where(reaches_output, divided, 0)
    if layer.bias is not None:
        layer.bias.add_(change)
    elif norm is not None:
        norm.running_mean.sub_(change)
