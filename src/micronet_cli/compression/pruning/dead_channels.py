"""Which channels of a network are computed for nothing: zero for every image, or read by no layer.

Channels that layers share (residual sums, depthwise convolutions, gates) go where no reader needs them.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from micronet_cli.compression.pruning.dead_sides import dead_sides, stuck_readers
from micronet_cli.compression.pruning.needed_inputs import needed_inputs, plain_copy
from micronet_cli.compression.pruning.removal import Removal
from micronet_cli.trace.links import channel_links

TOLERANCE = 1e-10  # of the largest logit, in double precision
IMAGES = 2
MOST_CHECKS = 40  # forward passes that look for the part which changes the outputs


@dataclass(frozen=True)
class DeadChannels:
    """What was found.

    Attributes:
        removal: the channels that can go; both maps are empty for none.
        left: layers with dead channels that stay, as the network cannot be followed there.
    """

    removal: Removal
    left: list[str]


def find_dead_channels(model: nn.Module, input_shape: Sequence[int], multiple: int = 1) -> DeadChannels:
    """The channels that can go without changing what ``model`` computes in evaluation.

    Args:
        model: left as it is.
        input_shape: (channels, height, width).
        multiple: the channels that stay in each group are a multiple of it; some dead ones stay for that. Blocked
            kernels work on 8 or 16 channels, and are slower on fewer channels that are no multiple of these.
    """
    twin = plain_copy(model)
    needed = needed_inputs(twin, input_shape)
    sides = channel_links(twin, input_shape)
    parts = dead_sides(sides, needed, multiple)
    check = _Check(model, input_shape)
    removal, refused = check.all_that_hold(parts)
    left = stuck_readers(sides, needed)
    for part in refused:
        left += part.outputs
    return DeadChannels(removal, sorted(set(left)))


class _Check:
    """Compares the outputs of a network with and without some channels, in double precision."""

    def __init__(self, model: nn.Module, input_shape: Sequence[int]) -> None:
        self.model = copy.deepcopy(model).double().eval()
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(IMAGES, *input_shape, generator=generator, dtype=torch.float64)
        device = next(self.model.parameters()).device
        self.images = images.to(device)
        self.before = self._outputs(self.model)

    @torch.no_grad()
    def _outputs(self, model: nn.Module) -> Tensor:
        return model(self.images)

    def all_that_hold(self, parts: Sequence[Removal]) -> tuple[Removal, list[Removal]]:
        """Everything where the outputs stay, else what is left of it when halves that change them are halved again.

        What cannot be told within ``MOST_CHECKS`` stays, so that the time is bounded.
        """
        kept = Removal({}, {})
        refused: list[Removal] = []
        waiting = [list(parts)]
        checks = 0
        while waiting:
            some = waiting.pop()
            larger = _joined([kept, *some])
            is_tried = checks < MOST_CHECKS
            checks += 1
            if is_tried and self._holds(larger):
                kept = larger
            elif is_tried and len(some) > 1:
                middle = len(some) // 2
                waiting += [some[middle:], some[:middle]]
            else:
                refused += some
        return kept, refused

    def _holds(self, removal: Removal) -> bool:
        """Whether the outputs stay what they were."""
        smaller = copy.deepcopy(self.model)
        removal.attach(smaller)
        try:
            after = self._outputs(smaller)
        except Exception:  # a network that states numbers of channels itself fails in any way
            return False
        largest = self.before.abs().max()
        difference = (after - self.before).abs().max()
        return bool(difference <= TOLERANCE * largest)


def _joined(parts: Sequence[Removal]) -> Removal:
    """All channels of all parts."""
    outputs: dict[str, list[int]] = {}
    inputs: dict[str, list[int]] = {}
    for part in parts:
        _add(part.outputs, outputs)
        _add(part.inputs, inputs)
    return Removal(outputs, inputs)


def _add(channels: Mapping[str, Sequence[int]], total: dict[str, list[int]]) -> None:
    for layer, gone in channels.items():
        before = total.get(layer, [])
        total[layer] = sorted({*before, *gone})
