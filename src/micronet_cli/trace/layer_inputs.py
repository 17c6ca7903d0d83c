"""What a layer reads at some positions of some images: rows of its sums of products."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from micronet_cli.functional.patches import sampled_patches
from micronet_cli.torch_internals import reversed_padding


class _ReachedError(Exception):
    """The layer's input is known; the rest of the network need not run."""


def has_rows(layer: nn.Module) -> bool:
    """Whether a layer is a plain product of rows with its weight: linear, or a 2-d convolution padded with zeros."""
    forward = type(layer).forward
    if isinstance(layer, nn.Linear):
        return forward is nn.Linear.forward
    if not isinstance(layer, nn.Conv2d) or layer.padding_mode != "zeros":
        return False
    return forward is nn.Conv2d.forward


@torch.no_grad()
def input_rows(
    models: Sequence[nn.Module],
    name: str,
    batches: Iterable[Tensor],
    per_image: int,
    generator: torch.Generator,
) -> list[Tensor]:
    """The rows that layer ``name`` reads, from the same positions in each of the models: ``[groups, n, d]`` each.

    Args:
        models: networks whose layer of that name has the same shape; its input is taken behind its quantiser.
        name: a layer with ``has_rows``.
        batches: images ``[N, C, H, W]``.
        per_image: positions an image, drawn by ``generator`` where there are more.
        generator: on the CPU.
    """
    layer = models[0].get_submodule(name)
    rows: dict[int, list[Tensor]] = defaultdict(list)  # by the model's number
    for images in batches:
        inputs = [_input_of(model, name, images) for model in models]
        total = _rows_of(layer, inputs[0]).positions
        positions = _draw(total, per_image, inputs[0], generator)
        for number, x in enumerate(inputs):
            read = _rows_of(layer, x).at(positions)
            rows[number].append(read)
    return [torch.cat(parts, 1) for parts in rows.values()]


def product(rows: Tensor, weight: Tensor) -> Tensor:
    """``[groups, n, d], [C_out, ...] -> [n, C_out]``: the layer's output at these rows, without bias."""
    groups = len(rows)
    flat = weight.flatten(1)
    by_group = flat.unflatten(0, (groups, -1))  # [groups, C_out / groups, d]
    sums = rows @ by_group.transpose(1, 2)  # [groups, n, C_out / groups]
    channels_last = sums.transpose(0, 1)
    return channels_last.flatten(1)


def _input_of(model: nn.Module, name: str, images: Tensor) -> Tensor:
    found: list[Tensor] = []

    def take(layer: nn.Module, inputs: tuple) -> None:
        x = inputs[0]
        found.append(x)
        raise _ReachedError

    layer = model.get_submodule(name)
    handle = layer.register_forward_pre_hook(take)
    try:
        with suppress(_ReachedError):
            model(images)
    finally:
        handle.remove()
    return found[0]


class _LinearRows:
    """The rows that a linear layer reads of ``x [N, ..., C_in]``: one a position.

    Attributes:
        positions: number of an image's positions.
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.positions = math.prod(x.shape[1:-1])

    def at(self, positions: Tensor) -> Tensor:
        """``[N, P] -> [1, N P, C_in]``."""
        images = len(self.x)
        features = self.x.shape[-1]
        flat = self.x.reshape(images, -1, features)
        image = torch.arange(images, device=flat.device)
        rows = flat[image[:, None], positions]
        return rows.reshape(1, -1, features)


class _PatchRows:
    """The rows that a 2-d convolution reads of ``x [N, C_in, H, W]``: one an output position and group.

    Attributes:
        positions: number of an image's positions.
    """

    def __init__(self, layer: nn.Conv2d, x: Tensor) -> None:
        self.layer = layer
        self.x = x
        self.padding = reversed_padding(layer)
        left, right, top, bottom = self.padding
        height = self._steps(0, x.shape[2] + top + bottom)
        self.width = self._steps(1, x.shape[3] + left + right)
        self.positions = height * self.width

    def _steps(self, dim: int, padded: int) -> int:
        """Output positions along one dimension of the padded image."""
        layer = self.layer
        gaps = layer.kernel_size[dim] - 1
        reach = layer.dilation[dim] * gaps
        free = padded - reach - 1
        return free // layer.stride[dim] + 1

    def at(self, positions: Tensor) -> Tensor:
        """``[N, P] -> [groups, N P, C_in / groups kH kW]``."""
        layer = self.layer
        patches = sampled_patches(
            self.x,
            layer.kernel_size,
            layer.stride,
            layer.dilation,
            self.padding,
            positions // self.width,
            positions % self.width,
        )
        by_group = patches.unflatten(1, (layer.groups, -1))
        groups_first = by_group.transpose(0, 1)
        return groups_first.flatten(2)


def _rows_of(layer: nn.Module, x: Tensor) -> _LinearRows | _PatchRows:
    if isinstance(layer, nn.Conv2d):
        return _PatchRows(layer, x)
    return _LinearRows(x)


def _draw(total: int, per_image: int, images: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers of output positions out of ``total``, int64 ``[N, P]``."""
    count = len(images)
    device = images.device
    if total <= per_image:
        every_position = torch.arange(total, device=device)
        return every_position.expand(count, -1)
    drawn = torch.randint(total, (count, per_image), generator=generator)
    return drawn.to(device)
