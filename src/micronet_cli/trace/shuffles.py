"""Recognise channel shuffles among moves of data.

A move that only changes the layout is free. One that changes the order of the channels counts as a product with a
permutation matrix. Two forms are known: channels split in two, the halves exchanged and merged again; and an index by
a permutation.
"""

from typing import Any

import torch
from torch import Tensor

from micronet_cli.trace.executed import Executed
from micronet_cli.trace.known_tensors import KnownTensors, layout_of
from micronet_cli.trace.layouts import Read
from micronet_cli.trace.records import Op, Stored

CHANNELS = 1
_SHUFFLES = frozenset({"native_channel_shuffle", "channel_shuffle"})
_INDEXING = frozenset({"index", "index_select"})
_VIEWS = frozenset({"view", "_unsafe_view"})
_REORDERS = frozenset({"transpose", "permute"})
_KEEPS_SHAPE = frozenset({"clone", "contiguous", "alias", "detach"})


class ShuffleWatch:
    """Follows tensors from the split of their channels to the merge."""

    def __init__(self) -> None:
        self._split: dict[int, torch.Size] = {}
        self._swapped: dict[int, torch.Size] = {}

    def see(self, kind: str, args: tuple, out: Tensor) -> int:
        """Number of channels that this move puts into a new order, 0 for any other operation."""
        if not args or not isinstance(args[0], Tensor):
            return 0
        source = args[0]
        if kind in _SHUFFLES:
            return source.shape[CHANNELS]
        if kind in _INDEXING:
            return _permuting_index(source, args)
        if kind in _VIEWS:
            return self._see_view(source, out)
        if kind in _REORDERS:
            self._see_reorder(source, out, kind, args)
        elif kind in _KEEPS_SHAPE and id(source) in self._swapped:
            self._swapped[id(out)] = self._swapped[id(source)]
        return 0

    def _see_view(self, source: Tensor, out: Tensor) -> int:
        """A view splits the channels, or merges halves that changed places."""
        merged_shape = self._swapped.get(id(source))
        if merged_shape == out.shape:
            return out.shape[CHANNELS]
        if _splits_channels(source, out):
            self._split[id(out)] = source.shape
        return 0

    def _see_reorder(self, source: Tensor, out: Tensor, kind: str, args: tuple) -> None:
        whole_shape = self._split.get(id(source))
        if whole_shape is not None and _swaps_halves(source, kind, args):
            self._swapped[id(out)] = whole_shape


def _splits_channels(source: Tensor, out: Tensor) -> bool:
    """[N, C, ...] -> [N, g, C / g, ...] with both parts larger than one and further dimensions after them."""
    if source.dim() < 3 or out.dim() != source.dim() + 1:
        return False
    after = CHANNELS + 1
    if out.shape[:CHANNELS] != source.shape[:CHANNELS]:
        return False
    if out.shape[after + 1 :] != source.shape[after:]:
        return False
    parts = out.shape[CHANNELS : after + 1]
    return min(parts) > 1


def _swaps_halves(source: Tensor, kind: str, args: tuple) -> bool:
    """Whether the two parts of the split channels change places, and nothing else does."""
    dims = source.dim()
    unchanged = list(range(dims))
    if kind == "transpose":
        order = _exchanged(unchanged, args[1] % dims, args[2] % dims)
    else:
        order = [dim % dims for dim in args[1]]
    return order == _exchanged(unchanged, CHANNELS, CHANNELS + 1)


def _exchanged(order: list[int], one: int, other: int) -> list[int]:
    changed = list(order)
    changed[one] = order[other]
    changed[other] = order[one]
    return changed


def _permuting_index(source: Tensor, args: tuple) -> int:
    """Channels of ``source[:, index]`` where a known index holds every channel once, out of order."""
    index = _channel_index(args)
    if not isinstance(index, Tensor) or index.is_meta or source.dim() < 3:
        return 0
    channels = source.shape[CHANNELS]
    if index.shape != (channels,):
        return 0
    in_order = torch.arange(channels, device=index.device)
    if torch.equal(index, in_order):
        return 0
    ordered = index.sort().values
    if not torch.equal(ordered, in_order):
        return 0
    return channels


def _channel_index(args: tuple) -> Any:
    """What the channels are indexed with: ``index(x, [indices])`` or ``index_select(x, dim, index)``."""
    if not isinstance(args[1], list):
        _, dim, index = args
        return index if dim == CHANNELS else None
    indices = args[1]
    if len(indices) <= CHANNELS:
        return None
    return indices[CHANNELS]


def permutation(known: KnownTensors, executed: Executed, layer: str, channels: int) -> Op:
    """The record of a shuffle: a product with a permutation matrix [channels, channels]."""
    source = executed.tensors[0]
    value = known.activation(source)
    assert value is not None
    row = Stored(f"{layer}.permutation", layer, elements=channels * channels, nonzeros=channels)
    matrix = known.add_made_up(row)
    codes = known.values[value].quantizers
    made = [known.add_value(out, codes) for out in executed.outputs]
    elements = executed.outputs[0].numel()
    read = Read(value, layout_of(source))
    return Op(
        kind="permute_channels",
        layer=layer,
        inputs=(value,),
        outputs=tuple(made),
        parameters=(matrix,),
        elements=elements,
        taken=elements,
        rows=elements,
        reads=(read,),
    )
