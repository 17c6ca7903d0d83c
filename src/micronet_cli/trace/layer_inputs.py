"""What a layer reads at some positions of some images: rows of its sums of products."""

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
    return (rows @ weight.flatten(1).unflatten(0, (len(rows), -1)).transpose(1, 2)).transpose(0, 1).flatten(1)


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
    total = int(torch.tensor(_output_size(layer, x)).prod())
    if total <= count:
        return torch.arange(total, device=x.device).expand(len(x), -1)
    return torch.randint(total, (len(x), count), generator=generator).to(x.device)


def _output_size(layer: nn.Module, x: Tensor) -> tuple[int, ...]:
    if not isinstance(layer, nn.Conv2d):
        return tuple(x.shape[1:-1])
    left, right, top, bottom = reversed_padding(layer)
    sizes = (x.shape[2] + top + bottom, x.shape[3] + left + right)
    return tuple(
        (size - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, dilation, stride in zip(sizes, layer.kernel_size, layer.dilation, layer.stride, strict=True)
    )


def _rows(layer: nn.Module, x: Tensor, positions: Tensor) -> Tensor:
    if not isinstance(layer, nn.Conv2d):
        flat = x.reshape(len(x), -1, x.shape[-1])
        return flat[torch.arange(len(x), device=x.device)[:, None], positions].reshape(1, -1, x.shape[-1])
    width = _output_size(layer, x)[1]
    patches = sampled_patches(
        x, layer.kernel_size, layer.stride, layer.dilation, reversed_padding(layer),
        positions // width, positions % width,
    )  # fmt: skip
    return patches.unflatten(1, (layer.groups, -1)).transpose(0, 1).flatten(2)
