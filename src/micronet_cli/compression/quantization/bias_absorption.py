"""High-bias absorption (Nagel et al., Data-Free Quantization, arXiv 1906.04721, section 4.1.3)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from micronet_cli.compression.quantization.equalization import batch_norm_of
from micronet_cli.compression.quantization.layer_output import shift_products
from micronet_cli.functional.equalization import absorbable, expected_output
from micronet_cli.layers.padding import pads_zeros
from micronet_cli.trace.chains import Chain


@torch.no_grad()
def absorb_biases(model: nn.Module, chains: Mapping[str, Chain]) -> list[tuple[str, str]]:
    """Take what a channel always exceeds off in front of a ReLU, and add it behind the next layer; the pairs of layers.

    The ReLU's output, which is quantised, then needs a smaller range. What is taken off is c = max(0, beta - 3 gamma)
    of the BatchNorm in front. The network computes what it did wherever a channel reaches its c, and elsewhere as if it
    did.

    The next layer must see every channel moved by its c: not through zeros that it, or a pool, pads its input with. A
    function with an upper bound, as ReLU6, is left alone: it would not reach as far as before.

    Args:
        model: without quantisers; changed in place.
        chains: what ``trace.chains`` found in it.
    """
    pairs = []
    for chain in chains.values():
        after = chains.get(chain.after or "")
        if after is None or not _can_be_moved(model, chain, after):
            continue
        moved = _absorb(model, chain, after)
        if moved:
            pairs.append((chain.layer, after.layer))
    return pairs


def _can_be_moved(model: nn.Module, chain: Chain, after: Chain) -> bool:
    """Whether a BatchNorm and a ReLU lie between the layers, and the second one reads and can take what is moved."""
    norm = batch_norm_of(model, chain)
    if norm is None or chain.function != "relu":
        return False
    if not chain.scalable or not chain.shiftable:
        return False
    layer = model.get_submodule(after.layer)
    takes_shift = layer.bias is not None or batch_norm_of(model, after) is not None
    return takes_shift and not pads_zeros(layer)


def _absorb(model: nn.Module, chain: Chain, after: Chain) -> bool:
    """Move c of every channel; whether there was any."""
    norm = batch_norm_of(model, chain)
    assert norm is not None
    constants = absorbable(norm.bias, norm.weight.abs())
    layer = model.get_submodule(after.layer)
    change = expected_output(layer.weight, _rows_of(constants, layer))
    norm.bias.sub_(constants)
    shift_products(model, after, change)
    return bool(constants.any())


def _rows_of(constants: Tensor, layer: nn.Module) -> Tensor:
    """What the layer's products read of constant channels: ``[C_in] -> [groups, d]``."""
    groups = getattr(layer, "groups", 1)
    by_group = constants.view(groups, -1)
    elements = layer.weight[0, 0].numel()
    return by_group.repeat_interleave(elements, 1)
