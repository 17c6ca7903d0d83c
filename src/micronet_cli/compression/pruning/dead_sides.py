"""Which channels that layers share can go: those that no layer reading them needs."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from micronet_cli.compression.pruning.removal import Removal
from micronet_cli.trace.channel_labels import FIXED
from micronet_cli.trace.links import Side

Needed = Mapping[str, Tensor]


def dead_sides(sides: Sequence[Side], needed: Needed, multiple: int = 1) -> list[Removal]:
    """What can go, in parts that are independent of one another: channels of the same layers are one part.

    Args:
        sides: the layers' channels, as ``trace.links`` numbers them.
        needed: layer -> bool ``[C_in]``.
        multiple: the output channels that stay in each layer are a multiple of it, and at least one.
    """
    dead = _unneeded(sides, needed)
    for side in sides:
        # Inputs are others' outputs, but maybe a part of them.
        staying = multiple if side.is_output else 1
        dead -= _spared(side, dead, staying)
    places: defaultdict[int, list[int]] = defaultdict(list)
    for index, side in enumerate(sides):
        for channel in dead.intersection(side.channels):
            places[channel].append(index)
    parts: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
    for channel, indices in places.items():
        parts[tuple(indices)].add(channel)
    return [_removal([sides[index] for index in indices], gone) for indices, gone in sorted(parts.items())]


def _unneeded(sides: Sequence[Side], needed: Needed) -> set[int]:
    """Numbers of the channels that are read by layers, none of which needs them."""
    read: set[int] = set()
    live = {FIXED}
    for side in sides:
        if side.is_output:
            continue
        read.update(side.channels)
        needed_here = needed[side.layer].tolist()
        for channel, is_needed in zip(side.channels, needed_here, strict=True):
            if is_needed:
                live.add(channel)
    return read - live


def _spared(side: Side, dead: set[int], multiple: int) -> set[int]:
    """Dead channels that stay in a layer so that what stays is a multiple, and not nothing."""
    counts = Counter(side.channels)
    staying = sum(count for channel, count in counts.items() if channel not in dead)
    spared: set[int] = set()
    for channel in sorted(dead & counts.keys()):
        if staying > 0 and staying % multiple == 0:
            break
        spared.add(channel)
        staying += counts[channel]
    return spared


def _removal(sides: Iterable[Side], gone: set[int]) -> Removal:
    outputs: dict[str, Sequence[int]] = {}
    inputs: dict[str, Sequence[int]] = {}
    for side in sides:
        numbers = [number for number, channel in enumerate(side.channels) if channel in gone]
        if side.is_output:
            outputs[side.layer] = numbers
        else:
            inputs[side.layer] = numbers
    return Removal(outputs, inputs)


def stuck_readers(sides: Sequence[Side], needed: Needed) -> list[str]:
    """Layers that read channels which they do not need, and which stay because an operation is fixed to them."""
    found = []
    for side in sides:
        if side.is_output:
            continue
        needed_here = needed[side.layer].tolist()
        pairs = zip(side.channels, needed_here, strict=True)
        if any(channel == FIXED and not is_needed for channel, is_needed in pairs):
            found.append(side.layer)
    return found
