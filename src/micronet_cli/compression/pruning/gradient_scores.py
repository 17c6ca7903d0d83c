"""Scores that gradients leave on a layer while it is trained.

They are buffers of the layer's ``EffectiveWeight``, so that a resumed run goes on with them and copies stay apart.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from micronet_cli.distributed import sum_over_ranks, world_size
from micronet_cli.functional.pruning import Accumulated
from micronet_cli.layers.effective_weight import EffectiveWeight, effective_weight, has_computed_weight, original_weight
from micronet_cli.layers.finite import NotFiniteValues, is_finite

SCORES = "pruning_scores"
DENSE = "dense_gradient"


def attach_buffer(layer: nn.Module, name: str) -> None:
    """A float32 buffer of the weight's shape, all zero, beside the layer's mask."""
    weight = original_weight(layer)
    zeros = torch.zeros_like(weight, dtype=torch.float32)
    parts = _parametrization(layer)
    parts.register_buffer(name, zeros)


def buffer_of(layer: nn.Module, name: str) -> Tensor:
    """What ``attach_buffer`` made."""
    parts = _parametrization(layer)
    return parts.get_buffer(name)


def averaged(layer: nn.Module, name: str) -> Tensor:
    """The buffer, first averaged over all processes: each has seen its own part of every batch.

    Raises:
        NotFiniteValues: it is not finite, and nothing can be ranked by it.
    """
    values = buffer_of(layer, name)
    processes = world_size()
    if processes > 1:
        sum_over_ranks(values).div_(processes)
    if not is_finite(values):
        raise NotFiniteValues(layer, name.replace("_", " "))
    return values


def accumulate(layer: nn.Module, criterion: Accumulated) -> RemovableHandle | None:
    """Feed every gradient of the layer's weight to ``criterion`` until the handle is removed; None where it is frozen.

    The hook is on the trainable tensor: copies of the network have none, and a compiled network calls it too. A weight
    that is computed from others, by standardisation or a norm, is what is ranked and not these: the hook is behind it.
    """
    parts = _parametrization(layer)
    if has_computed_weight(layer):
        watch = partial(_watch_computed, criterion)
        return parts.register_forward_hook(watch)
    original = original_weight(layer)
    if not original.requires_grad:
        return None

    def add(gradient: Tensor) -> None:
        weight = parts.masked(original)
        _add_scores(parts, criterion, weight, gradient)

    return original.register_hook(add)


def _watch_computed(criterion: Accumulated, module: EffectiveWeight, inputs: tuple, output: Tensor) -> None:
    """Forward hook (a function, so that copies stay apart)."""
    if module.training and output.requires_grad:
        weight = module.masked(inputs[0]).detach()
        output.register_hook(partial(_add_scores, module, criterion, weight))


@torch.no_grad()
def _add_scores(module: EffectiveWeight, criterion: Accumulated, weight: Tensor, gradient: Tensor) -> None:
    scores = module.get_buffer(SCORES)
    # Where the loss scale overflowed, gradients are not finite and say nothing about the weights.
    finite = gradient.nan_to_num(0.0, 0.0, 0.0)
    updated = criterion.add(scores, weight, finite)
    scores.copy_(updated)


class Listening:
    """Lets the gradients of some layers feed a criterion.

    Attributes:
        criterion: what ranks by the scores.
        layers: each with a ``SCORES`` buffer.
        handles: of the hooks; None while nobody listens.
    """

    def __init__(self, criterion: Accumulated, layers: Sequence[nn.Module]) -> None:
        self.criterion = criterion
        self.layers = layers
        self.handles: list[RemovableHandle] | None = None
        self._have_arrived = False

    def have_arrived(self) -> bool:
        """Whether there is something to rank by: gradients arrive with the first step."""
        # Once known it is not read again, for which a GPU would be waited for at every step.
        if not self._have_arrived:
            scores = (buffer_of(layer, SCORES) for layer in self.layers)
            self._have_arrived = any(bool(of_layer.any()) for of_layer in scores)
        return self._have_arrived

    def start(self) -> None:
        """Listen from now on."""
        if self.handles is not None:
            return
        handles = [accumulate(layer, self.criterion) for layer in self.layers]
        self.handles = [handle for handle in handles if handle is not None]

    def stop(self) -> None:
        """Listen no more; scores that were put back are read anew."""
        for handle in self.handles or []:
            handle.remove()
        self.handles = None
        self._have_arrived = False


def watch_dense_gradient(layer: nn.Module) -> RemovableHandle:
    """Add the gradient with respect to ``layer.weight``, zeros included, to the layer's ``DENSE`` buffer."""
    parts = _parametrization(layer)
    return parts.register_forward_hook(_watch)


def _watch(module: nn.Module, inputs: tuple, output: Tensor) -> None:
    """Forward hook (a function, so that copies stay apart)."""
    if module.training and output.requires_grad:
        output.register_hook(partial(_add_dense, module))


@torch.no_grad()
def _add_dense(module: nn.Module, gradient: Tensor) -> None:
    dense = module.get_buffer(DENSE)
    finite = gradient.nan_to_num(0.0, 0.0, 0.0)
    dense.add_(finite)


def _parametrization(layer: nn.Module) -> EffectiveWeight:
    weight = effective_weight(layer)
    assert weight is not None
    return weight
