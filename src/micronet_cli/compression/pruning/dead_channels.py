"""Which channels of a network are computed for nothing: zero for every image, or read by no layer.

A channel of a group of layers that share it goes where no reader of the group needs it.
"""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from micronet_cli.compression.pruning.channel_groups import dead_in_group, groups
from micronet_cli.compression.pruning.needed_inputs import needed_inputs, plain_copy
from micronet_cli.compression.pruning.removal import Removal

TOLERANCE = 1e-10  # of the largest logit, in double precision
IMAGES = 2


def find_dead_channels(model: nn.Module, input_shape: Sequence[int], multiple: int = 1) -> Removal:
    """The channels that can go without changing what ``model`` computes in evaluation; both maps empty for none.

    Args:
        model: left as it is.
        input_shape: (channels, height, width).
        multiple: the channels that stay in each group are a multiple of it; some dead ones stay for that. Blocked
            kernels work on 8 or 16 channels, and are slower on fewer channels that are no multiple of these.

    Raises:
        ImportError: torch-pruning is not installed.
        ValueError: it cannot follow the network.
    """
    twin = plain_copy(model)
    names = {module: name for name, module in twin.named_modules()}
    needed = needed_inputs(twin, input_shape)
    parts = []
    for group in groups(twin, input_shape):
        dead = dead_in_group(group, needed, multiple)
        if not dead.outputs:
            continue
        outputs = {names[module]: gone for module, gone in dead.outputs.items()}
        inputs = {names[module]: gone for module, gone in dead.inputs.items()}
        part = Removal(outputs, inputs)
        parts.append(part)
    return _all_that_hold(model, parts, input_shape)


def _all_that_hold(model: nn.Module, parts: Sequence[Removal], input_shape: Sequence[int]) -> Removal:
    """Everything where the outputs stay; else each part that leaves them so on top of those before it."""
    whole = _joined(parts)
    if _equal(model, whole, input_shape):
        return whole
    kept = _joined([])
    for part in parts:
        larger = _joined([kept, part])
        if _equal(model, larger, input_shape):
            kept = larger
    return kept


def _joined(parts: Sequence[Removal]) -> Removal:
    # A group holds all of a channel's layers, so no two groups name the same side of a layer.
    outputs: dict[str, Sequence[int]] = {}
    inputs: dict[str, Sequence[int]] = {}
    for part in parts:
        outputs.update(part.outputs)
        inputs.update(part.inputs)
    return Removal(outputs, inputs)


@torch.no_grad()
def _equal(model: nn.Module, removal: Removal, input_shape: Sequence[int]) -> bool:
    """Whether ``model`` computes the same without the channels, in double precision."""
    smaller = copy.deepcopy(model)
    smaller = smaller.double().eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGES, *input_shape, generator=generator, dtype=torch.float64)
    device = next(smaller.parameters()).device
    images = images.to(device)
    before = smaller(images)
    removal.attach(smaller)
    try:
        after = smaller(images)
    except RuntimeError:  # channels that the groups missed, padding of channels for one
        return False
    largest = before.abs().max()
    difference = (after - before).abs().max()
    return bool(difference <= TOLERANCE * largest)
