"""Layers whose outputs keep their means while others change, as if their biases were corrected anew."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def kept_means(layers: Mapping[str, nn.Module]) -> Iterator[None]:
    """Within the block every output of these layers has the mean by channel that it had in the first run.

    A gradient goes through it as through what it is: a mean does not change, so it has no part in it.
    """
    means: dict[str, Tensor] = {}
    # The first of the hooks: a quantiser of the output comes behind a bias.
    handles = [layer.register_forward_hook(_keep(means, name), prepend=True) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _keep(means: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple, Tensor], Tensor]:
    def hook(layer: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        mean = _channel_mean(layer, output)
        first = means.setdefault(name, mean.detach())
        return output + (first - mean)

    return hook


def _channel_mean(layer: nn.Module, output: Tensor) -> Tensor:
    """Mean over all dimensions but the channels': a linear layer's last, a convolution's second."""
    channels = output.dim() - 1 if isinstance(layer, nn.Linear) else 1
    others = [dim for dim in range(output.dim()) if dim != channels]
    return output.mean(others, keepdim=True)
