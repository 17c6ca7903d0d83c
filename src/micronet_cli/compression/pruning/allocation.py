"""How far each layer is pruned where the total is given: so that the logits change least, as far as it can be foreseen.

Of a layer of weight W [C_out, d] that reads x, the removal of a weight w_ij with the others of its row making up for it
changes output i by w_ij^2 / [H^-1]_jj on average (Optimal Brain Surgeon; H = E[x x^T]). What that is to the logits is
found by probing: the gradient of z^T logits by W, squared, is on average that of all logits, squared and summed, where
z is random signs, one for each image and class. Its sum over a row, against tr H, is how much an error of that row
counts; errors at all positions of an image come together in it, as they do in the network.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from micronet_cli.compression.pruning.layer_moments import Moments
from micronet_cli.compression.pruning.sparse_weight import inverse_explained

IMAGES_TOGETHER = 8  # forwards and backwards


@dataclass(frozen=True)
class Reading:
    """What a layer reads in the dense network, and what its weights do there.

    Attributes:
        removal: error of the output when a weight goes, like the weight.
        mean: of its rows ``[groups, d]``, 0 where nothing behind the layer can make up for a change of means.
        size: E|x - mean|^2, ``[groups]``.
    """

    removal: Tensor
    mean: Tensor
    size: Tensor

    @classmethod
    def of(cls, weight: Tensor, moments: Moments, mean: Tensor, dampening: float) -> "Reading":
        """Of rows less their ``mean``, by their ``moments``.

        Raises:
            UserError: the dampening is too small.
        """
        # What is added to the diagonal takes its part from the Hessian here: layers are compared.
        hessians = moments.damped_hessian(dampening) * (1 - moments.shrinkage)[:, None, None]
        with inverse_explained():
            factors = torch.linalg.cholesky(hessians)
        freedoms = torch.cholesky_inverse(factors).diagonal(dim1=1, dim2=2)
        by_group = weight.flatten(1).unflatten(0, (len(hessians), -1))
        removal = by_group.square() / freedoms[:, None]
        size = moments.hessian.diagonal(dim1=1, dim2=2).sum(1)
        return cls(removal.view(weight.shape).float(), mean, size)


def row_weights(
    network: nn.Module, readings: Mapping[str, Reading], batches: Sequence[Tensor], generator: torch.Generator
) -> dict[str, Tensor]:
    """Layer -> how much the logits' squared error grows with that of each of its outputs, ``[C_out]``.

    Args:
        network: dense, in evaluation mode.
        readings: of the layers.
        batches: images ``[N, C, H, W]``.
        generator: on the CPU, draws the signs.

    Raises:
        ValueError: the network has no derivatives.
    """
    squares = {name: torch.zeros(len(reading.removal)) for name, reading in readings.items()}
    layers = {name: network.get_submodule(name) for name in readings}
    weights = [layer.weight for layer in layers.values()]
    gradient_sums: dict[str, Tensor] = {}
    handles = []
    for name, layer in layers.items():
        layer.weight.requires_grad_(True)
        handle = layer.register_forward_hook(_sum_gradients(gradient_sums, name))
        handles.append(handle)
    try:
        for batch in batches:
            for images in batch.split(IMAGES_TOGETHER):
                gradients = _probed(network, weights, images, generator)
                for name, gradient in zip(readings, gradients, strict=True):
                    square = _centred(gradient, gradient_sums[name], readings[name].mean).square()
                    squares[name] += square.sum(1).cpu()
    except RuntimeError as error:
        raise ValueError(
            f"prune.scope=global: the network has no derivatives ({error}); take prune.scope=layer"
        ) from None
    finally:
        for handle in handles:
            handle.remove()
        for weight in weights:
            weight.requires_grad_(False)
    return {name: _against_size(square, readings[name].size.cpu()) for name, square in squares.items()}


def _sum_gradients(sums: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple, Tensor], None]:
    """Forward hook that has the gradient of each output channel summed over all images and positions."""

    def hook(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        channels = output.dim() - 1 if isinstance(layer, nn.Linear) else 1
        others = [dim for dim in range(output.dim()) if dim != channels]

        def add(gradient: Tensor) -> None:
            sums[name] = gradient.sum(others)

        output.register_hook(add)

    return hook


def _probed(
    network: nn.Module, weights: Sequence[Tensor], images: Tensor, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """The gradient of the logits, each times a random sign, by the weights."""
    with torch.enable_grad():
        logits = network(images)
        signs = torch.randint(0, 2, logits.shape, generator=generator) * 2 - 1
        signs = signs.to(logits)
        return torch.autograd.grad(logits, weights, signs)


def _centred(gradient: Tensor, output_gradient: Tensor, mean: Tensor) -> Tensor:
    """The gradient by a weight that multiplies the input less its mean, ``[C_out, d]``."""
    outputs = len(gradient)
    means = mean.repeat_interleave(outputs // len(mean), dim=0)
    return gradient.flatten(1) - output_gradient[:, None] * means


def _against_size(squares: Tensor, sizes: Tensor) -> Tensor:
    """Squared gradients of rows ``[C_out]`` for the size of what they read ``[groups]``; 0 where that is nothing."""
    of_rows = sizes.repeat_interleave(len(squares) // len(sizes))
    tiny = torch.finfo(of_rows.dtype).tiny
    return torch.where(of_rows > 0, squares / of_rows.clamp(min=tiny), 0)
