"""Scores that gradients leave on a layer while it is trained.

They are buffers of the layer's ``EffectiveWeight``, so that a resumed run goes on with them and copies stay apart.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from micronet_cli.distributed import sum_over_ranks, world_size
from micronet_cli.functional.pruning import Accumulated
from micronet_cli.layers.effective_weight import EffectiveWeight, effective_weight, original_weight

SCORES = "pruning_scores"
DENSE = "dense_gradient"


def attach_buffer(layer: nn.Module, name: str) -> None:
    """A float32 buffer of the weight's shape, all zero, beside the layer's mask."""
    weight = _parametrization(layer)
    weight.register_buffer(name, torch.zeros_like(original_weight(layer), dtype=torch.float32))


def buffer_of(layer: nn.Module, name: str) -> Tensor:
    """What ``attach_buffer`` made."""
    return _parametrization(layer).get_buffer(name)


def averaged(layer: nn.Module, name: str) -> Tensor:
    """The buffer, first averaged over all processes: each has seen its own part of every batch."""
    found = buffer_of(layer, name)
    if world_size() > 1:
        sum_over_ranks(found).div_(world_size())
    return found


def accumulate(layer: nn.Module, criterion: Accumulated) -> RemovableHandle | None:
    """Feed every gradient of the layer's weight to ``criterion``; None where the layer is not trained.

    The hook is on the trainable tensor: copies of the network have none, and a compiled network calls it too.
    """
    original, weight = original_weight(layer), _parametrization(layer)
    if not original.requires_grad:
        return None

    @torch.no_grad()
    def add(gradient: Tensor) -> None:
        scores = weight.get_buffer(SCORES)
        # A step whose loss scale overflowed says nothing.
        scores.copy_(criterion.add(scores, weight.masked(original), gradient.nan_to_num(0.0, 0.0, 0.0)))

    return original.register_hook(add)


def watch_dense_gradient(layer: nn.Module) -> RemovableHandle:
    """Add the gradient with respect to ``layer.weight``, zeros included, to the layer's ``DENSE`` buffer."""
    return _parametrization(layer).register_forward_hook(_watch)


def _watch(module: nn.Module, inputs: tuple, output: Tensor) -> None:
    """Forward hook (a function, so that copies stay apart)."""
    if module.training and output.requires_grad:
        output.register_hook(partial(_add_dense, module))


@torch.no_grad()
def _add_dense(module: nn.Module, gradient: Tensor) -> None:
    module.get_buffer(DENSE).add_(gradient.nan_to_num(0.0, 0.0, 0.0))


def _parametrization(layer: nn.Module) -> EffectiveWeight:
    weight = effective_weight(layer)
    assert weight is not None
    return weight
