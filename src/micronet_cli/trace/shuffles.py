"""Recognise channel shuffles among moves of data.

A move that only changes the layout is free. One that changes the order of the channels counts as a product with a
permutation matrix. Two forms are known: channels split in two, the halves exchanged and merged again; and an index by
a permutation.
"""

from typing import Any

import torch
from torch import Tensor

CHANNELS = 1
_KEEPS_SHAPE = frozenset({"clone", "contiguous", "alias", "detach"})


class ShuffleWatch:
    """Follows tensors from the split of their channels to the merge."""

    def __init__(self) -> None:
        self._split: dict[int, torch.Size] = {}
        self._swapped: dict[int, torch.Size] = {}

    def see(self, kind: str, args: tuple, out: Tensor) -> int:
        """Number of channels that this move puts into a new order, 0 for any other operation."""
        source = args[0] if args and isinstance(args[0], Tensor) else None
        if source is None:
            return 0
        if kind in ("native_channel_shuffle", "channel_shuffle"):
            return source.shape[CHANNELS]
        if kind in ("index", "index_select"):
            return _permuting_index(source, args)
        if kind in ("view", "_unsafe_view"):
            if self._swapped.get(id(source)) == out.shape:
                return out.shape[CHANNELS]
            if _splits_channels(source, out):
                self._split[id(out)] = source.shape
        elif kind in ("transpose", "permute") and id(source) in self._split:
            if _swaps_halves(source, kind, args):
                self._swapped[id(out)] = self._split[id(source)]
        elif kind in _KEEPS_SHAPE and id(source) in self._swapped:
            self._swapped[id(out)] = self._swapped[id(source)]
        return 0


def _splits_channels(source: Tensor, out: Tensor) -> bool:
    """[N, C, ...] -> [N, g, C / g, ...] with both parts larger than one and further dimensions after them."""
    if source.dim() < 3 or out.dim() != source.dim() + 1:
        return False
    same = out.shape[:CHANNELS] == source.shape[:CHANNELS] and out.shape[CHANNELS + 2 :] == source.shape[CHANNELS + 1 :]
    return same and out.shape[CHANNELS] > 1 and out.shape[CHANNELS + 1] > 1


def _swaps_halves(source: Tensor, kind: str, args: tuple) -> bool:
    order = list(range(source.dim()))
    if kind == "transpose":
        a, b = (d % source.dim() for d in args[1:3])
        order[a], order[b] = order[b], order[a]
    else:
        order = [d % source.dim() for d in args[1]]
    wanted = list(range(source.dim()))
    wanted[CHANNELS : CHANNELS + 2] = [CHANNELS + 1, CHANNELS]
    return order == wanted


def _permuting_index(source: Tensor, args: tuple) -> int:
    """Channels of ``source[:, index]`` where a known index holds every channel once, out of order."""
    index: Any = args[1][CHANNELS] if isinstance(args[1], list) and len(args[1]) > CHANNELS else None
    if not isinstance(args[1], list) and args[1] == CHANNELS:
        index = args[2]
    if not isinstance(index, Tensor) or index.is_meta or index.dim() != 1 or source.dim() < 3:
        return 0
    order = torch.arange(source.shape[CHANNELS], device=index.device)
    if len(index) != len(order) or torch.equal(index, order):
        return 0
    return len(order) if torch.equal(index.sort().values, order) else 0
