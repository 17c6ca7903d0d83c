"""Cross-layer equalisation (Nagel et al., Data-Free Quantization, arXiv 1906.04721, section 4.1)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from micronet_cli.functional.equalization import equalization_scales, input_ranges, output_ranges, scale_inputs
from micronet_cli.layers.batch_norm import gain_and_shift
from micronet_cli.layers.effective_weight import original_weight
from micronet_cli.trace.chains import BatchNorm, Chain

SWEEPS = 40
CONVERGED = 1e-3  # largest |log s| that is left alone


def batch_norm_of(model: nn.Module, chain: Chain) -> nn.Module | None:
    """The BatchNorm that follows a layer, None where there is none (any more)."""
    norm = None if chain.norm is None else model.get_submodule(chain.norm)
    return norm if isinstance(norm, BatchNorm) else None


@torch.no_grad()
def equalize(model: nn.Module, chains: Mapping[str, Chain]) -> list[tuple[str, str]]:
    """Give the weights before and after every channel the same range; the pairs of layers it was done for.

    A BatchNorm between two layers need not be folded: its gain counts as the first layer's, and its weight and bias are
    divided in the place of the layer's. What the network computes stays as it was, up to rounding; so do masks.

    Args:
        model: without quantisers; changed in place.
        chains: what ``trace.chains`` found in it.
    """
    pairs = [chain for chain in chains.values() if chain.equalizable and _scalable(batch_norm_of(model, chain))]
    for _ in range(SWEEPS):
        largest_move = 0.0
        for chain in pairs:
            scales = _equalize_pair(model, chain)
            largest_move = max(largest_move, float(scales.log().abs().amax()))
        if largest_move < CONVERGED:
            break
    return [(chain.layer, chain.after or "") for chain in pairs]


def _scalable(norm: nn.Module | None) -> bool:
    return norm is None or bool(norm.affine)


def _equalize_pair(model: nn.Module, chain: Chain) -> Tensor:
    """One step for the channels between two layers; the scales that they were divided by, [C]."""
    layer = model.get_submodule(chain.layer)
    after = model.get_submodule(chain.after or "")
    norm = batch_norm_of(model, chain)
    groups = getattr(after, "groups", 1)
    produced = output_ranges(layer.weight)
    if norm is None:
        divided = [original_weight(layer), layer.bias]
    else:
        gain, _ = gain_and_shift(norm)
        produced = produced * gain.abs().to(produced.dtype)
        divided = [norm.weight, norm.bias]
    scales = equalization_scales(produced, input_ranges(after.weight, groups))
    for tensor in divided:
        if tensor is not None:
            tensor.div_(_per_row(scales, tensor))
    consumed = original_weight(after)
    consumed.copy_(scale_inputs(consumed, scales, groups))
    return scales


def _per_row(scales: Tensor, tensor: Tensor) -> Tensor:
    """``[C] -> [C, 1, ...]`` with as many dimensions as ``tensor``."""
    ones = [1] * (tensor.dim() - 1)
    return scales.view(-1, *ones)
