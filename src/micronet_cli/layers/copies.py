"""Deep copies of networks that a forward pass has left tensors in."""

import copy
from typing import TypeVar

from torch import Tensor, nn

from micronet_cli.torch_internals import tree_leaves

Network = TypeVar("Network", bound=nn.Module)


def copied(model: Network) -> Network:
    """A deep copy; tensors that a forward pass computed and a module keeps, as a cache, are detached in it.

    LeViT keeps its gathered biases, ``torch.nn.utils.weight_norm`` the weight; ``deepcopy`` refuses such tensors.
    """
    return copy.deepcopy(model, computed_tensors(model))


def computed_tensors(model: nn.Module) -> dict[int, Tensor]:
    """What ``copy.deepcopy`` must be told of such tensors: their ids -> their copies."""
    copies = {}
    for module in model.modules():
        for leaf in tree_leaves(vars(module)):
            if isinstance(leaf, Tensor) and not leaf.is_leaf:
                copies[id(leaf)] = leaf.detach().clone()
    return copies
