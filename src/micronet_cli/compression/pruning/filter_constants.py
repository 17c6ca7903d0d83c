"""What dropped filters would leave behind: a constant in each of their channels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from micronet_cli.layers.rules import stated_shape
from micronet_cli.trace.batch_norm import batch_norm_pairs


def constants_of(layers: Sequence[nn.Module], model: nn.Module) -> list[tuple[nn.Module, list[nn.Parameter]]]:
    """Layers of a network with what makes the constant: their BatchNorm's gain and shift, or their own bias."""
    norms = _norm_of_layer(model)
    names = {layer: name for name, layer in model.named_modules()}
    found = []
    for layer in layers:
        norm_name = norms.get(names[layer])
        if norm_name is not None:
            norm = model.get_submodule(norm_name)
            found.append((layer, list(norm.parameters())))
        elif isinstance(layer.bias, nn.Parameter):
            found.append((layer, [layer.bias]))
    return found


def _norm_of_layer(model: nn.Module) -> dict[str, str]:
    """Layer -> the BatchNorm behind it; empty for a network that does not state its input's shape."""
    shape = stated_shape(model)
    if shape is None:
        return {}
    pairs = batch_norm_pairs(model, shape)
    return {layer: norm for norm, layer in pairs.items()}


@torch.no_grad()
def silence(shifts: Sequence[nn.Parameter], kept: Tensor) -> None:
    """Set the ``shifts``, each ``[C]``, to 0 for the channels that are not ``kept``, bool ``[C]``.

    A dropped filter leaves BatchNorm's shift or its own bias behind, a constant that the next layer would have to go on
    adding up. Zeroed before every step, while training can still make up for it, the channel is exactly zero and can be
    taken out without changing anything, which zero padding prevents for a constant.
    """
    for shift in shifts:
        shift.mul_(kept)
