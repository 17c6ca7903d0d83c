"""AdaRound: the weights of one layer are rounded so that its output stays (Nagel et al., arXiv 2004.10568)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from micronet_cli.compression.quantization.descent import Descent
from micronet_cli.compression.quantization.fixed_grid import FixedGrid
from micronet_cli.compression.quantization.reconstruction import Reconstruction
from micronet_cli.functional.adaptive_rounding import (
    annealed_beta,
    inverse_rectified_sigmoid,
    rectified_sigmoid,
    rounding_regularizer,
)
from micronet_cli.layers.effective_weight import effective_weight, original_weight

FEW_BITS = 7
# What 6 bits change where the largest of a channel's weights is 3 standard deviations, (2 * 3 / 63)^2 / 12: a layer of
# more bits that loses as much has a few weights that leave the others few steps.
LARGE_ERROR = 7.5e-4


@dataclass(frozen=True)
class AdaRound:
    """Adaptive rounding of a layer's weight on its stored grid.

    Coordinate descent finds integers that are closer, in a fraction of the time; Adam is the paper's way.

    Attributes:
        when: ``always``; ``auto``: where rounding matters, see ``learns`` and ``learns_from``.
        iterations: steps of Adam a layer; None: coordinate descent. All that follows is Adam's.
        batch_size: rows a step.
        lr: Adam's learning rate.
        regularization: lambda, the weight of the term that drives every h to 0 or 1.
        warmup: part of the steps without it, in [0, 1).
    """

    when: Literal["auto", "always"] = "auto"
    iterations: int | None = None
    batch_size: int = 1024
    lr: float = 0.01
    regularization: float = 0.01
    warmup: float = 0.2

    def __post_init__(self) -> None:
        if self.when not in ("auto", "always"):
            raise ValueError(f"when={self.when}: must be auto or always")
        for name in ("iterations", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        for name in ("lr", "regularization"):
            value = getattr(self, name)
            if value <= 0:
                raise ValueError(f"{name}={value}: must be above 0")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup={self.warmup}: must be a fraction of the steps in [0, 1)")

    def learns(self, bits: float) -> bool:
        """Whether rounding is learned for a weight of so many bits, whatever its error."""
        return self.when == "always" or bits < FEW_BITS

    def learns_from(self, error: float) -> bool:
        """Whether rounding is learned for an error of so much.

        Args:
            error: ||f(W x') - f(W' x')||^2 over ||f(W x)||^2: what rounding to the nearest alone changes.
        """
        return error > LARGE_ERROR

    def round(self, layer: nn.Module, reconstruction: Reconstruction, centred: bool = False) -> None:
        """Set the layer's original weight to values on its grid.

        Args:
            layer: its weight on a stored grid, which may get other steps.
            reconstruction: what it reads, and what it has to give.
            centred: bias correction sets the mean of its output afterwards.
        """
        if self.iterations is None:
            descent = Descent(layer, reconstruction, centred)
            rounded = descent.run()
            with torch.no_grad():
                original_weight(layer).copy_(rounded)
        else:
            self._learn(layer, reconstruction, self.iterations)

    def _learn(self, layer: nn.Module, reconstruction: Reconstruction, iterations: int) -> None:
        """By Adam; the nearest where that is better."""
        parts = effective_weight(layer)
        assert parts is not None
        assert isinstance(parts.fake_quantize, FixedGrid)
        grid = parts.fake_quantize
        original = original_weight(layer)
        kept = torch.ones_like(original)
        if parts.mask is not None:
            kept = parts.mask.to(original.dtype)
        masked = original.detach() * kept
        exact_codes = masked * grid.scale - grid.zero_point
        floor = exact_codes.floor()

        def weight(fraction: Tensor) -> Tensor:
            codes = (floor + fraction).clamp(0, grid.largest)
            return (codes + grid.zero_point) / grid.scale * kept

        start = exact_codes - floor
        error = reconstruction.loss(weight(start), self.batch_size)
        fraction = self._by_adam(start, lambda fraction, step: error(weight(fraction), step), iterations)
        with torch.no_grad():
            rounded_up = fraction >= 0.5
            learned = weight(rounded_up.to(original.dtype))
            nearest = layer.weight.detach()
            if reconstruction.error(learned) < reconstruction.error(nearest):
                original.copy_(learned)
            else:
                original.copy_(nearest)

    def _by_adam(self, start: Tensor, error: Callable[[Tensor, int], Tensor], iterations: int) -> Tensor:
        """h, of the weight's shape, after so many steps of Adam.

        Args:
            start: h where they begin, in [0, 1).
            error: h and the number of a step -> the layer's error there, 0-dim.
            iterations: steps.
        """
        variables = inverse_rectified_sigmoid(start).requires_grad_()
        optimizer = torch.optim.Adam([variables], self.lr)
        for step in range(iterations):
            fraction = rectified_sigmoid(variables)
            loss = error(fraction, step)
            beta = annealed_beta(step / iterations, self.warmup)
            if beta is not None:
                loss = loss + self.regularization * rounding_regularizer(fraction, beta)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return rectified_sigmoid(variables).detach()
