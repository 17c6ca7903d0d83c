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
    if chain.norm is None:
        return None
    norm = model.get_submodule(chain.norm)
    # A folded one has left an identity in its place.
    if not isinstance(norm, BatchNorm):
        return None
    return norm


@torch.no_grad()
def equalize(model: nn.Module, chains: Mapping[str, Chain]) -> list[tuple[str, str]]:
    """Give the weights before and after every channel the same range; the pairs of layers it was done for.

    A BatchNorm between two layers need not be folded: its gain counts as the first layer's, and its weight and bias are
    divided in the place of the layer's. What the network computes stays as it was, up to rounding; so do masks.

    Args:
        model: without quantisers; changed in place.
        chains: what ``trace.chains`` found in it.
    """
    pairs = []
    for chain in chains.values():
        if chain.equalizable and _can_be_scaled(model, chain):
            pairs.append(chain)
    for _ in range(SWEEPS):
        moves = [_equalize_pair(model, chain) for chain in pairs]
        largest_move = max(moves, default=0.0)
        if largest_move < CONVERGED:
            break
    return [(chain.layer, chain.after or "") for chain in pairs]


def _can_be_scaled(model: nn.Module, chain: Chain) -> bool:
    """Whether the layer's output has a factor that can be changed: a BatchNorm without gain has none."""
    norm = batch_norm_of(model, chain)
    if norm is None:
        return True
    return bool(norm.affine)


def _equalize_pair(model: nn.Module, chain: Chain) -> float:
    """One step for the channels between two layers; how far it moved them, the largest |log s|."""
    layer = model.get_submodule(chain.layer)
    after = model.get_submodule(chain.after or "")
    groups = getattr(after, "groups", 1)
    norm = batch_norm_of(model, chain)
    produced = output_ranges(layer.weight)
    if norm is None:
        divided = [original_weight(layer), layer.bias]
    else:
        gain, _ = gain_and_shift(norm)
        magnitude = gain.abs()
        produced = produced * magnitude.to(produced.dtype)
        divided = [norm.weight, norm.bias]
    consumed = input_ranges(after.weight, groups)
    scales = equalization_scales(produced, consumed)
    for tensor in divided:
        if tensor is not None:
            rows = _per_row(scales, tensor)
            tensor.div_(rows)
    weight = original_weight(after)
    scaled = scale_inputs(weight, scales, groups)
    weight.copy_(scaled)
    moves = scales.log().abs()
    return float(moves.amax())


def _per_row(scales: Tensor, tensor: Tensor) -> Tensor:
    """``[C] -> [C, 1, ...]`` with as many dimensions as ``tensor``."""
    trailing = tensor.dim() - 1
    ones = [1] * trailing
    return scales.view(-1, *ones)
