"""Recognise channel shuffles among moves of data.

A move that only changes the layout is free. One that changes the order of the channels counts as a product with a
permutation matrix. Two forms are known: channels split in two, the halves exchanged and merged again; and an index by
a permutation.
"""

from typing import Any

import torch
from torch import Tensor

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
            if self._swapped.get(id(source)) == out.shape:
                return out.shape[CHANNELS]
            if _splits_channels(source, out):
                self._split[id(out)] = source.shape
        elif kind in _REORDERS and id(source) in self._split:
            if _swaps_halves(source, kind, args):
                self._swapped[id(out)] = self._split[id(source)]
        elif kind in _KEEPS_SHAPE and id(source) in self._swapped:
            self._swapped[id(out)] = self._swapped[id(source)]
        return 0


def _splits_channels(source: Tensor, out: Tensor) -> bool:
    """[N, C, ...] -> [N, g, C / g, ...] with both parts larger than one and further dimensions after them."""
    if source.dim() < 3 or out.dim() != source.dim() + 1:
        return False
    same_before = out.shape[:CHANNELS] == source.shape[:CHANNELS]
    same_after = out.shape[CHANNELS + 2 :] == source.shape[CHANNELS + 1 :]
    parts = out.shape[CHANNELS : CHANNELS + 2]
    return same_before and same_after and min(parts) > 1


def _swaps_halves(source: Tensor, kind: str, args: tuple) -> bool:
    """Whether the two parts of the split channels change places, and nothing else does."""
    dims = source.dim()
    if kind == "transpose":
        order = list(range(dims))
        one, other = args[1] % dims, args[2] % dims
        order[one], order[other] = other, one
    else:
        order = [dim % dims for dim in args[1]]
    swapped = list(range(dims))
    swapped[CHANNELS], swapped[CHANNELS + 1] = CHANNELS + 1, CHANNELS
    return order == swapped


def _permuting_index(source: Tensor, args: tuple) -> int:
    """Channels of ``source[:, index]`` where a known index holds every channel once, out of order."""
    index = _channel_index(args)
    if not isinstance(index, Tensor) or index.is_meta or index.dim() != 1 or source.dim() < 3:
        return 0
    channels = source.shape[CHANNELS]
    in_order = torch.arange(channels, device=index.device)
    if len(index) != channels or torch.equal(index, in_order):
        return 0
    if not torch.equal(index.sort().values, in_order):
        return 0
    return channels


def _channel_index(args: tuple) -> Any:
    """What the channels are indexed with: ``index(x, [indices])`` or ``index_select(x, dim, index)``."""
    if isinstance(args[1], list):
        indices = args[1]
        return indices[CHANNELS] if len(indices) > CHANNELS else None
    return args[2] if args[1] == CHANNELS else None
