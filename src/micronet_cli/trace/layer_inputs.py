"""What a layer reads at some positions of some images: rows of its sums of products."""

import math
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
    if isinstance(layer, nn.Conv2d):
        return forward is nn.Conv2d.forward and layer.padding_mode == "zeros"
    return isinstance(layer, nn.Linear) and forward is nn.Linear.forward


@torch.no_grad()
def input_rows(
    models: Sequence[nn.Module], name: str, batches: Iterable[Tensor], per_image: int, generator: torch.Generator
) -> list[Tensor]:
    """The rows that layer ``name`` reads, from the same positions in each of the models: ``[groups, n, d]`` each.

    Args:
        models: networks whose layer of that name has the same shape; its input is taken behind its quantiser.
        name: a layer with ``has_rows``.
        batches: images ``[N, C, H, W]``.
        per_image: positions an image, drawn by ``generator`` where there are more.
        generator: on the CPU.
    """
    rows: list[list[Tensor]] = [[] for _ in models]
    for images in batches:
        inputs = [_input_of(model, name, images) for model in models]
        layer = models[0].get_submodule(name)
        positions = _draw(layer, inputs[0], per_image, generator)
        for kept, x in zip(rows, inputs, strict=True):
            kept.append(_rows(layer, x, positions))
    return [torch.cat(kept, 1) for kept in rows]


def product(rows: Tensor, weight: Tensor) -> Tensor:
    """``[groups, n, d], [C_out, ...] -> [n, C_out]``: the layer's output at these rows, without bias."""
    groups = len(rows)
    by_group = weight.flatten(1).unflatten(0, (groups, -1))  # [groups, C_out / groups, d]
    sums = rows @ by_group.transpose(1, 2)  # [groups, n, C_out / groups]
    return sums.transpose(0, 1).flatten(1)


def _input_of(model: nn.Module, name: str, images: Tensor) -> Tensor:
    found: list[Tensor] = []

    def take(layer: nn.Module, inputs: tuple) -> None:
        found.append(inputs[0])
        raise _ReachedError

    handle = model.get_submodule(name).register_forward_pre_hook(take)
    try:
        with suppress(_ReachedError):
            model(images)
    finally:
        handle.remove()
    return found[0]


def _draw(layer: nn.Module, x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Numbers of output positions, int64 ``[N, P]``."""
    total = math.prod(_output_size(layer, x))
    if total <= count:
        return torch.arange(total, device=x.device).expand(len(x), -1)
    return torch.randint(total, (len(x), count), generator=generator).to(x.device)


def _output_size(layer: nn.Module, x: Tensor) -> tuple[int, ...]:
    if not isinstance(layer, nn.Conv2d):
        return tuple(x.shape[1:-1])
    left, right, top, bottom = reversed_padding(layer)
    padded = (x.shape[2] + top + bottom, x.shape[3] + left + right)
    sizes = []
    for dim, size in enumerate(padded):
        reach = layer.dilation[dim] * (layer.kernel_size[dim] - 1)
        sizes.append((size - reach - 1) // layer.stride[dim] + 1)
    return tuple(sizes)


def _rows(layer: nn.Module, x: Tensor, positions: Tensor) -> Tensor:
    if not isinstance(layer, nn.Conv2d):
        features = x.shape[-1]
        flat = x.reshape(len(x), -1, features)
        image = torch.arange(len(x), device=x.device)[:, None]
        return flat[image, positions].reshape(1, -1, features)
    _, width = _output_size(layer, x)
    patches = sampled_patches(
        x,
        layer.kernel_size,
        layer.stride,
        layer.dilation,
        reversed_padding(layer),
        positions // width,
        positions % width,
    )
    by_group = patches.unflatten(1, (layer.groups, -1))
    return by_group.transpose(0, 1).flatten(2)
