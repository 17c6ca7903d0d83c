"""How far each layer is pruned where the total is given: so that the logits change least, as far as it can be foreseen.

Of a layer of weight W [C_out, d] that reads x, the removal of a weight w_ij with the others of its row making up for it
changes output i by w_ij^2 / [H^-1]_jj on average (Optimal Brain Surgeon; H = E[x x^T]). What that is to the logits is
found by probing: the gradient of z^T logits by W, squared, is on average that of all logits, squared and summed, where
z is random signs, one for each image and class. Its sum over a row, against tr H, is how much an error of that row
counts; errors at all positions of an image come together in it, as they do in the network.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from micronet_cli.compression.pruning.layer_moments import Moments
from micronet_cli.compression.pruning.second_order import Target
from micronet_cli.compression.pruning.sparse_weight import inverse_explained
from micronet_cli.functional.granularity import Granularity
from micronet_cli.functional.masks import shrink_masks, sparsity_of
from micronet_cli.layers.effective_weight import mask_of

IMAGES_TOGETHER = 8  # forwards and backwards
LEAST_WEIGHT = 1e-3  # of a row, of the mean of its layer


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
        part_of_hessian = 1 - moments.shrinkage
        hessians = moments.damped_hessian(dampening) * part_of_hessian[:, None, None]
        with inverse_explained():
            factors = torch.linalg.cholesky(hessians)
        inverses = torch.cholesky_inverse(factors)
        freedoms = inverses.diagonal(dim1=1, dim2=2)
        groups = len(hessians)
        by_group = weight.flatten(1).unflatten(0, (groups, -1))
        removal = by_group.square() / freedoms[:, None]
        mean_squares = moments.hessian.diagonal(dim1=1, dim2=2)
        return cls(
            removal=removal.view(weight.shape).float(),
            mean=mean,
            size=mean_squares.sum(1),
        )


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
    layers = {name: network.get_submodule(name) for name in readings}
    weights = [layer.weight for layer in layers.values()]
    squares = {}
    for name, reading in readings.items():
        outputs = len(reading.removal)
        squares[name] = torch.zeros(outputs)
    with _gradient_sums(layers) as sums:
        for batch in batches:
            for images in batch.split(IMAGES_TOGETHER):
                gradients = _probed(network, weights, images, generator)
                for name, gradient in zip(readings, gradients, strict=True):
                    of_rows = _row_squares(gradient, sums[name], readings[name].mean)
                    squares[name] += of_rows.cpu()
    against_size = {}
    for name, reading in readings.items():
        size = reading.size.cpu()
        against_size[name] = _against_size(squares[name], size)
    return against_size


@contextmanager
def _gradient_sums(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Layer -> the gradient of each output channel in the latest pass backwards, summed; weights take part in it.

    Raises:
        ValueError: there was no pass backwards.
    """
    sums: dict[str, Tensor] = {}
    handles = []
    for name, layer in layers.items():
        layer.weight.requires_grad_(True)
        hook = _sum_gradients(sums, name)
        handle = layer.register_forward_hook(hook)
        handles.append(handle)
    try:
        yield sums
    except RuntimeError as error:
        raise ValueError(
            f"prune.scope=global: the network has no derivatives ({error}); take prune.scope=layer"
        ) from None
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers.values():
            layer.weight.requires_grad_(False)


def _sum_gradients(sums: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple, Tensor], None]:
    """Forward hook that has the gradient of each output channel summed over all images and positions."""

    def hook(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        others = list(range(output.dim()))
        channels = -1 if isinstance(layer, nn.Linear) else 1
        del others[channels]

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
        coins = torch.randint(0, 2, logits.shape, generator=generator)
        signs = (2 * coins - 1).to(logits)
        return torch.autograd.grad(logits, weights, signs)


def _row_squares(gradient: Tensor, output_gradient: Tensor, mean: Tensor) -> Tensor:
    """Of each row ``[C_out]`` the squared gradient by a weight that multiplies the input less its mean, summed."""
    groups = len(mean)
    rows_a_group = len(gradient) // groups
    means = mean.repeat_interleave(rows_a_group, dim=0)
    centred = gradient.flatten(1) - output_gradient[:, None] * means
    return centred.square().sum(1)


def _against_size(squares: Tensor, sizes: Tensor) -> Tensor:
    """Squared gradients of rows ``[C_out]`` for the size of what they read ``[groups]``; 0 where that is nothing."""
    groups = len(sizes)
    rows_a_group = len(squares) // groups
    of_rows = sizes.repeat_interleave(rows_a_group)
    tiny = torch.finfo(of_rows.dtype).tiny
    divided = squares / of_rows.clamp(min=tiny)
    return torch.where(of_rows > 0, divided, 0)


def shared_out(
    targets: Sequence[Target],
    readings: Mapping[str, Reading],
    weights: Mapping[str, Tensor],
    granularity: Granularity,
) -> list[Target]:
    """The layers with sparsities of their own, of the same total, at which the logits change least.

    Args:
        targets: layers with the sparsities that give the total.
        readings: of each.
        weights: of their rows, as ``row_weights`` gives them.
        granularity: what goes together.
    """
    importances = []
    for target in targets:
        removal = readings[target.name].removal
        importance = removal * _for_rows(weights[target.name], removal)
        importances.append(importance)
    masks = [mask_of(target.layer) for target in targets]
    sparsities = [target.sparsity for target in targets]
    shrunk = shrink_masks(importances, masks, sparsities, granularity)
    shared = []
    for target, mask in zip(targets, shrunk, strict=True):
        sparsity = sparsity_of(mask)
        shared.append(replace(target, sparsity=sparsity))
    return shared


def row_scale(weights: Tensor, weight: Tensor) -> Tensor:
    """What makes the squared error of a row of ``weight`` count as it does for the logits, ``[C_out, 1, ...]``.

    Args:
        weights: of the rows, ``[C_out]``.
        weight: ``[C_out, ...]``.
    """
    weights = weights.to(weight)
    tiny = torch.finfo(weight.dtype).tiny
    mean = weights.mean().clamp(min=tiny)
    relative = weights / mean
    scale = relative.clamp(min=LEAST_WEIGHT).sqrt()
    return _for_rows(scale, weight)


def _for_rows(values: Tensor, weight: Tensor) -> Tensor:
    """``[C_out]`` as a factor of a weight ``[C_out, ...]``."""
    others = [1] * (weight.dim() - 1)
    return values.to(weight).view(-1, *others)
