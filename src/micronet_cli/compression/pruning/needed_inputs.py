"""Which input channels of a network's layers are needed: not zero for every image, and read by a weight."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from micronet_cli.layers.copies import copied
from micronet_cli.layers.layer_input import watch_input
from micronet_cli.layers.plain import strip
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.torch_internals import BatchNorm

IMAGES = 2


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode without quantisers and parametrizations: weights are the effective ones."""
    return strip(model).cpu().float().eval()


@torch.no_grad()
def needed_inputs(twin: nn.Module, input_shape: Sequence[int]) -> dict[str, Tensor]:
    """Executed convolution or linear layer -> bool ``[C_in]``: the channel is not always zero, and a weight reads it.

    What is not zero is made positive (weights, shifts, images; means become 0), so that no sum cancels and no
    activation function cuts: what is zero then is zero because of the zeros in the weights.
    """
    positive = copied(twin)
    _make_positive(positive)
    nonzero_inputs = _nonzero_inputs(positive, input_shape)
    needed = {}
    for name, nonzero in nonzero_inputs.items():
        layer = twin.get_submodule(name)
        weight_of_input = layer.weight.transpose(0, 1).flatten(1)
        read = (weight_of_input != 0).any(1)
        needed[name] = nonzero
        # Groups of several channels, or of one, share their weights' second dimension.
        if len(read) == len(nonzero):
            needed[name] = nonzero & read
    return needed


def _make_positive(model: nn.Module) -> None:
    """Random positive numbers in the place of all parameters but zeros, and running statistics of 0 and 1."""
    for parameter in model.parameters():
        is_live = parameter != 0
        live = is_live.to(parameter.dtype)
        values = 0.5 + torch.rand_like(live)
        values = values * live
        if live.dim() > 1:
            # Rows of mean about 1, so that nothing grows or shrinks from layer to layer.
            rows = live.flatten(1)
            live_in_row = rows.sum(1).clamp_min(1)
            trailing = live.dim() - 1
            ones = [1] * trailing
            values /= live_in_row.view(-1, *ones)
        parameter.copy_(values)
    for norm in model.modules():
        if isinstance(norm, BatchNorm) and norm.running_mean is not None:
            norm.reset_running_stats()


def _nonzero_inputs(model: nn.Module, input_shape: Sequence[int]) -> dict[str, Tensor]:
    """Layer that was executed -> bool ``[C_in]``: the channel is not zero everywhere in two positive images."""
    seen: dict[str, Tensor] = {}

    def look_at(name: str, channel_dim: int) -> Callable[[Tensor], None]:
        def see(x: Tensor) -> None:
            channels = x.movedim(channel_dim, 0)
            values = channels.flatten(1)
            nonzero = (values != 0).any(1)
            # A layer that is executed again reads what it read before too.
            before = seen.get(name, nonzero)
            seen[name] = before | nonzero

        return see

    for name, layer in compressible_layers(model).items():
        channel_dim = 1
        if isinstance(layer, nn.Linear):
            channel_dim = -1
        see = look_at(name, channel_dim)
        watch_input(layer, see)
    images = 0.5 + torch.rand(IMAGES, *input_shape)
    model(images)
    return seen
