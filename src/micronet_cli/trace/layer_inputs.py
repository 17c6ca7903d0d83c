"""What a layer reads at some positions of some images: rows of its sums of products."""

import math
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from micronet_cli.functional.patches import sampled_patches
from micronet_cli.layers.effective_weight import has_computed_weight
from micronet_cli.layers.padding import padded
from micronet_cli.layers.plain_product import runs_linear

# A layer of groups reads many values for few weights an output: so many are looked at, over all positions.
GROUPED_VALUES = 1 << 25
Inputs = Iterable[tuple[int, Sequence[Tensor]]]


def has_rows(layer: nn.Module) -> bool:
    """Whether a layer is a plain product of rows with its weight: linear, or a 2-d convolution, however it pads.

    One whose weight is computed from other tensors is not: no row of it could be written anew.
    """
    if has_computed_weight(layer):
        return False
    return isinstance(layer, nn.Linear | nn.Conv2d) and runs_linear(layer)


class Room:
    """Memory that the rows of one layer after the other lie in: new memory costs as much as what is put there."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def empty(self, like: Tensor, *shape: int) -> Tensor:
        """``shape``, of the type and on the device of ``like``; valid until the next call."""
        count = math.prod(shape)
        memory = self._memory
        fits = len(memory) >= count and memory.dtype == like.dtype and memory.device == like.device
        if not fits:
            self._memory = torch.empty(0)  # the smaller one goes first
            self._memory = like.new_empty(count)
        return self._memory[:count].view(shape)


@torch.no_grad()
def input_rows(
    layer: nn.Module,
    inputs: Inputs,
    images: int,
    per_image: int,
    generator: torch.Generator,
    rooms: Sequence[Room] = (),
    shuffled: bool = True,
) -> list[Tensor]:
    """The rows that a layer reads, from the same positions in each of some networks: ``[groups, n, d]`` each.

    Their order is random: any that follow one another are a fair sample, and lie together. Or they follow the images,
    as many of each.

    Args:
        layer: with ``has_rows``.
        inputs: batch by batch, the number of images and what the layer reads of them in each network.
        images: in all batches.
        per_image: positions an image, drawn by ``generator`` where there are more; fewer of a layer of many groups.
        generator: on the CPU.
        rooms: where the rows go, one a network; none: to memory of their own.
        shuffled: whether their order is random.
    """
    per_image = positions_looked_at(layer, images, per_image)
    found: list[_Gathered] = []
    share = 0
    for count, read in inputs:
        places: Tensor | None = None
        for number, x in enumerate(read):
            rows = _rows_of(layer, x)
            # An image may be cut into windows: what counts is its share of all positions.
            share = share or max(1, rows.total // count)
            if places is None:
                places = _draw(share, count, per_image, generator).to(x.device)
            if number == len(found):
                total = len(places) * images // count
                room = rooms[number] if rooms else Room()
                order = _order(total, generator.initial_seed(), shuffled)
                found.append(_Gathered(order, room))
            # Where there are fewer positions than images, they repeat.
            at_places = rows.at(places % rows.total)
            found[number].add(at_places)
            del rows
    return [gathered.rows for gathered in found]


def positions_looked_at(layer: nn.Module, images: int, per_image: int) -> int:
    """How many of an image's positions are: ``per_image``, or fewer of a layer of many groups."""
    groups = getattr(layer, "groups", 1)
    if groups == 1:
        return per_image
    read_at_each = groups * layer.weight[0].numel()
    most = GROUPED_VALUES // (read_at_each * images)
    return min(per_image, max(1, most))


def product(rows: Tensor, weight: Tensor) -> Tensor:
    """``[groups, n, d], [C_out, ...] -> [C_out, n]``: the layer's output at these rows, without bias."""
    groups = len(rows)
    flat = weight.flatten(1)
    by_group = flat.unflatten(0, (groups, -1))  # [groups, C_out / groups, d]
    sums = torch.bmm(by_group, rows.transpose(1, 2))  # [groups, C_out / groups, n]
    return sums.flatten(0, 1)


def _order(total: int, seed: int, shuffled: bool) -> Tensor:
    """The places of so many rows, a permutation."""
    if not shuffled:
        return torch.arange(total)
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(total, generator=generator)


class _Gathered:
    """Rows of one network, batch by batch, in their places.

    Args:
        order: the place of each, in the order in which they come.
        room: where they go.
    """

    rows: Tensor

    def __init__(self, order: Tensor, room: Room) -> None:
        self._room = room
        self._order = order
        self._filled = 0

    def add(self, rows: Tensor) -> None:
        """Take in ``[groups, m, d]``."""
        groups, count, length = rows.shape
        if not self._filled:
            self.rows = self._room.empty(rows, groups, len(self._order), length)
        places = self._order[self._filled : self._filled + count]
        self.rows.index_copy_(1, places.to(rows.device), rows)
        self._filled += count


class _Rows(Protocol):
    """The rows that a layer reads of an input; ``total`` of them."""

    total: int

    def at(self, positions: Tensor) -> Tensor:
        """``[n] -> [groups, n, d]``."""
        ...


class _LinearRows:
    """The rows that a linear layer reads of ``x [..., C_in]``."""

    def __init__(self, x: Tensor) -> None:
        self._flat = x.reshape(-1, x.shape[-1])
        self.total = len(self._flat)

    def at(self, positions: Tensor) -> Tensor:
        """``[n] -> [1, n, C_in]``."""
        return self._flat[positions][None]


class _PatchRows:
    """The rows that a 2-d convolution reads of ``x [N, C_in, H, W]``: one an output position and group."""

    def __init__(self, layer: nn.Conv2d, x: Tensor) -> None:
        self._layer = layer
        self._padded = padded(layer, x)
        self._height = self._steps(0)
        self._width = self._steps(1)
        self.total = len(x) * self._height * self._width

    def _steps(self, dim: int) -> int:
        """Output positions along one dimension of the padded image."""
        layer = self._layer
        gaps = layer.kernel_size[dim] - 1
        reach = layer.dilation[dim] * gaps
        free = self._padded.shape[2 + dim] - reach - 1
        return free // layer.stride[dim] + 1

    def at(self, positions: Tensor) -> Tensor:
        """``[n] -> [groups, n, C_in / groups kH kW]``."""
        layer = self._layer
        lines = positions // self._width
        return sampled_patches(
            self._padded,
            layer.groups,
            layer.kernel_size,
            layer.stride,
            layer.dilation,
            images=lines // self._height,
            rows=lines % self._height,
            columns=positions % self._width,
        )


def _rows_of(layer: nn.Module, x: Tensor) -> _Rows:
    if isinstance(layer, nn.Conv2d):
        return _PatchRows(layer, x)
    return _LinearRows(x)


def _draw(share: int, images: int, per_image: int, generator: torch.Generator) -> Tensor:
    """Positions of so many images in turn, each of which has ``share`` of its own, int64 ``[n]``."""
    if share <= per_image:
        drawn = torch.arange(share).expand(images, -1)
    else:
        drawn = torch.randint(share, (images, per_image), generator=generator)
    starts = torch.arange(images) * share
    positions = starts[:, None] + drawn
    return positions.flatten()
