"""BatchNorm folded into the layer before it (Jacob et al., arXiv 1712.05877, section 3.2)."""

from collections.abc import Sequence

import torch
from torch import nn

from micronet_cli.layers.batch_norm import gain_and_shift, remove_batch_norm
from micronet_cli.layers.effective_weight import effective_weight, original_weight
from micronet_cli.trace.batch_norm import batch_norm_pairs


@torch.no_grad()
def fold_batch_norms(model: nn.Module, input_shape: Sequence[int]) -> dict[str, str]:
    """Fold every BatchNorm that can be folded into the layer before it; BatchNorm -> layer, by name.

    The outputs in evaluation stay what they were, up to rounding; masked weights stay zero.

    Raises:
        ValueError: a layer that a BatchNorm folds into is quantised: its levels would not survive.
    """
    pairs = batch_norm_pairs(model, input_shape)
    for norm_name, layer_name in pairs.items():
        layer = model.get_submodule(layer_name)
        norm = model.get_submodule(norm_name)
        if _quantizes_weight(layer):
            raise ValueError(f"{layer_name} is quantised already; BatchNorms fold before that")
        _fold(norm, layer)
        remove_batch_norm(model, norm_name)
    return pairs


def _quantizes_weight(layer: nn.Module) -> bool:
    weight = effective_weight(layer)
    if weight is None:
        return False
    return weight.fake_quantize is not None


def _fold(norm: nn.Module, layer: nn.Module) -> None:
    """Take a BatchNorm's gain and shift into the layer's weight and bias."""
    gain, shift = gain_and_shift(norm)
    weight = original_weight(layer)
    trailing = weight.dim() - 1
    ones = [1] * trailing
    gain_of_rows = gain.to(weight.dtype).view(-1, *ones)
    weight.mul_(gain_of_rows)
    # In double precision, rounded once.
    bias = shift
    if layer.bias is not None:
        bias = layer.bias.double() * gain + shift
    bias = bias.to(weight.dtype)
    layer.bias = nn.Parameter(bias)
