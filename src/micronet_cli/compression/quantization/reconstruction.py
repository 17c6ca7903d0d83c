"""What the weight of one layer is judged by: how far its output moves from the float network's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from micronet_cli.compression.quantization.layer_output import Affine
from micronet_cli.trace.layer_inputs import product


def mean_square(outputs: Tensor) -> Tensor:
    """Mean squared length of the output vectors of ``[C_out, n]``, 0-dim."""
    count = outputs.shape[1]
    return outputs.square().sum() / count


@dataclass(frozen=True)
class Reconstruction:
    """||f(W x) - f(W' x')||^2 (Nagel et al., arXiv 2004.10568, equation 25).

    Attributes:
        inputs: x', rows that the layer reads in the quantised network, in random order, ``[groups, n, d]``.
        target: f(W x), what follows from the float network's own rows, ``[C_out, n]``.
        normalised: bias and BatchNorm, the first part of f.
        activation: the rest of f; None: there is none.
    """

    inputs: Tensor
    target: Tensor
    normalised: Affine
    activation: Callable[[Tensor], Tensor] | None = None

    def outputs(self, weight: Tensor, rows: slice = slice(None)) -> Tensor:
        """f(W' x') of the chosen rows, ``[C_out, n]``."""
        products = product(self.inputs[:, rows], weight)
        output = self.normalised(products)
        if self.activation is None:
            return output
        return self.activation(output)

    def error(self, weight: Tensor, rows: slice = slice(None)) -> Tensor:
        """Mean squared distance of an output vector, over the chosen rows; 0-dim."""
        difference = self.outputs(weight, rows) - self.target[:, rows]
        return mean_square(difference)

    def loss(self, weight: Tensor, batch_size: int) -> "Loss":
        """What a step of learning is judged by.

        Without an activation function the error is a quadratic form of the weight, which costs no more over all rows
        than over some; otherwise each step takes the next ``batch_size`` of them.

        Args:
            weight: where learning begins.
            batch_size: rows a step.
        """
        if self.activation is None:
            return _Quadratic(self, weight)
        return _Sampled(self, batch_size)


class Loss(Protocol):
    """A layer's error as its weight is learned."""

    def __call__(self, weight: Tensor, step: int) -> Tensor:
        """Mean squared distance of an output vector in that step; 0-dim, with a gradient."""
        ...


class _Sampled:
    """The error at the next rows, from step to step, over and over."""

    def __init__(self, reconstruction: Reconstruction, batch_size: int) -> None:
        self._reconstruction = reconstruction
        rows = reconstruction.target.shape[1]
        self._batch_size = min(batch_size, rows)
        self._batches = rows // self._batch_size

    def __call__(self, weight: Tensor, step: int) -> Tensor:
        batch = step % self._batches
        first = batch * self._batch_size
        # Neighbours in memory: no row is copied.
        rows = slice(first, first + self._batch_size)
        return self._reconstruction.error(weight, rows)


class _Quadratic:
    """The error at all rows, of a layer that nothing but an affine map follows.

    With the weight's change D since the beginning, residuals r = W x' - f(W x) there and the gain g of each channel:
    E|g D x' + r|^2 = sum g^2 D E[x' x'^T] D^T + 2 g E[r x'^T] D^T + E|r|^2.
    """

    @torch.no_grad()
    def __init__(self, reconstruction: Reconstruction, weight: Tensor) -> None:
        inputs = reconstruction.inputs
        self._groups, count, _ = inputs.shape
        columns = inputs.transpose(1, 2)
        self._squares = torch.bmm(columns, inputs) / count
        residuals = reconstruction.outputs(weight) - reconstruction.target
        channels = len(residuals)
        gain = reconstruction.normalised.gain.expand(channels, 1)
        self._gain = self._by_group(gain)
        slope = torch.bmm(self._by_group(residuals), inputs) / count
        self._slope = 2 * self._gain * slope
        rows = weight.detach().flatten(1)
        self._start = self._by_group(rows)
        self._least = mean_square(residuals)

    def _by_group(self, channels: Tensor) -> Tensor:
        """``[C_out, ...] -> [groups, C_out / groups, ...]``."""
        return channels.unflatten(0, (self._groups, -1))

    def __call__(self, weight: Tensor, step: int) -> Tensor:
        change = self._by_group(weight.flatten(1)) - self._start
        curvature = self._gain.square() * torch.bmm(change, self._squares)
        added = (curvature + self._slope) * change
        return self._least + added.sum()
