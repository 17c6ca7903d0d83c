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
        weight = effective_weight(layer)
        if weight is not None and weight.fake_quantize is not None:
            raise ValueError(f"{layer_name} is quantised already; BatchNorms fold before that")
        gain, shift = gain_and_shift(norm)
        original = original_weight(layer)
        ones = [1] * (original.dim() - 1)
        original.mul_(gain.to(original.dtype).view(-1, *ones))
        bias = shift if layer.bias is None else layer.bias.double() * gain + shift
        layer.bias = nn.Parameter(bias.to(original.dtype))
        remove_batch_norm(model, norm_name)
    return pairs
