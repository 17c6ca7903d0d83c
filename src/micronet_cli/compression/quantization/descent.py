"""The weights of one layer are rounded together, by coordinate descent on the error of its output."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from micronet_cli.compression.quantization.fixed_grid import FixedGrid
from micronet_cli.compression.quantization.reconstruction import Reconstruction
from micronet_cli.functional.coordinate_descent import Grid, QuadraticForm, best_steps, descend, rounded_in_turn
from micronet_cli.layers.effective_weight import effective_weight, original_weight

SWEEPS = 10  # over a layer's weights; most end before, when none moves
# What holds weights to where they were, of the mean second moment: few images must not move them far.
DAMPING = 0.3
ROWS = 1 << 12  # that are looked at together
SMALLEST_GAIN = 1e-8  # of a channel that reaches the output
PROBED = 8.0  # where an activation function is steepest lies within
PROBES = 1601


class Descent:
    """One layer on its way to the integers that keep its output.

    An activation function f behind it makes the error (f(z) - y)^2 of an output z no quadratic form. In its place
    stands the parabola that touches it at z = W x', with its minimum at z - f'(z) (f(z) - y) / L, L = max f'^2: what f
    hides, as a ReLU's negative values, is left where it is. To look anew from where rounding ended, five times,
    changed nothing that could be measured.

    Args:
        layer: its weight on a stored grid.
        reconstruction: what it reads, and what it has to give.
        centred: the mean of its output does not count, since bias correction sets it afterwards.
    """

    @torch.no_grad()
    def __init__(self, layer: nn.Module, reconstruction: Reconstruction, centred: bool) -> None:
        self._layer = layer
        self._judged = reconstruction
        inputs = reconstruction.inputs
        self._groups, self._count, _ = inputs.shape
        self._mean = inputs.mean(1, keepdim=True)
        if not centred:
            self._mean = torch.zeros_like(self._mean)
        self._curvature = self._second_moments()
        self._damping = self._own_damping()
        original = original_weight(layer)
        self._steepest = 1.0
        if reconstruction.activation is not None:
            self._steepest = _steepest_square(reconstruction.activation, original)
        parts = effective_weight(layer)
        assert parts is not None
        assert isinstance(parts.fake_quantize, FixedGrid)
        self._stored = parts.fake_quantize
        kept = torch.ones_like(original)
        if parts.mask is not None:
            kept = parts.mask.to(original.dtype)
        self._start = self._by_group(original * kept)
        self._grid = self._stored_grid(kept)

    def _stored_grid(self, kept: Tensor) -> Grid:
        """The layer's grid as it is stored; ``kept`` is 1 or 0, shaped as the layer's weight."""
        scale = self._of_channels(self._stored.scale)
        return Grid(
            step=1 / scale,
            zero_point=self._of_channels(self._stored.zero_point),
            largest=self._stored.largest,
            kept=self._by_group(kept),
        )

    def _by_group(self, channels: Tensor) -> Tensor:
        """``[C_out, ...] -> [groups, C_out / groups, ...]``, each channel flat."""
        return channels.flatten(1).unflatten(0, (self._groups, -1))

    def _of_channels(self, setting: Tensor) -> Tensor:
        """A channel's setting, or one for all of them: ``[groups, C_out / groups, 1]``."""
        channels = len(self._layer.weight)
        each = setting.reshape(-1, 1).expand(channels, 1)
        return self._by_group(each)

    def _second_moments(self) -> Tensor:
        inputs = self._judged.inputs
        columns = inputs.transpose(1, 2)
        moments = torch.bmm(columns, inputs) / self._count
        return moments - self._mean.transpose(1, 2) @ self._mean

    def _own_damping(self) -> Tensor:
        """Added to the curvature's diagonal, ``[groups, 1, 1]``; above 0 where a group reads nothing but constants."""
        diagonals = self._curvature.diagonal(dim1=1, dim2=2)
        of_groups = diagonals.mean(1)
        precision = torch.finfo(of_groups.dtype)
        floor = of_groups.mean() * precision.eps
        damping = DAMPING * of_groups + floor + precision.tiny
        return damping.view(-1, 1, 1)

    @torch.no_grad()
    def run(self) -> Tensor:
        """The weight that keeps the output best, shaped as the layer's; the stored grid gets its steps."""
        form = self._quadratic_form()
        codes = rounded_in_turn(form, self._grid)
        self._improve(form, codes)
        self._store_steps()
        weight = self._grid.weight(codes)
        return weight.reshape(self._layer.weight.shape)

    def _store_steps(self) -> None:
        scale = self._stored.scale
        steps = self._grid.step.flatten()
        # A step that all channels share is there once for each of them.
        stored = 1 / steps[: scale.numel()]
        scale.copy_(stored.view(scale.shape))

    def _quadratic_form(self) -> QuadraticForm:
        """The error around the weight as it is, which is also what damping holds it to."""
        slope = self._start @ self._curvature
        for first in range(0, self._count, ROWS):
            rows = slice(first, first + ROWS)
            centred = self._judged.inputs[:, rows] - self._mean
            residuals = self._residuals(rows)
            slope += torch.bmm(residuals, centred) / self._count
        size = self._curvature.shape[1]
        identity = torch.eye(size, dtype=slope.dtype, device=slope.device)
        return QuadraticForm(
            curvature=self._curvature + self._damping * identity,
            slope=slope + self._damping * self._start,
        )

    def _residuals(self, rows: slice) -> Tensor:
        """How far the products are from where they should be, ``[groups, C_out / groups, n]``."""
        judged = self._judged
        columns = judged.inputs[:, rows].transpose(1, 2)
        products = torch.bmm(self._start, columns)
        output = judged.normalised(products.flatten(0, 1))
        moves = self._moves(output, judged.target[:, rows])
        gain = judged.normalised.gain
        reaches_output = gain.abs() > SMALLEST_GAIN
        divisor = torch.where(reaches_output, gain, 1)
        divided = moves / divisor
        residuals = torch.where(reaches_output, divided, 0)
        return residuals.unflatten(0, (self._groups, -1))

    def _moves(self, output: Tensor, target: Tensor) -> Tensor:
        """Where the layer's output ``[C_out, n]`` before the activation function should go from here."""
        activation = self._judged.activation
        if activation is None:
            return target - output
        with torch.enable_grad():
            before = output.detach().requires_grad_()
            after = activation(before)
            missed = target - after.detach()
            (moves,) = torch.autograd.grad(after, before, missed)
        return moves / self._steepest

    def _improve(self, form: QuadraticForm, codes: Tensor) -> None:
        """Steps and codes in turn, until no code moves."""
        shared = self._stored.scale.dim() == 0
        for _ in range(SWEEPS):
            steps = best_steps(form, self._grid, codes, shared)
            self._grid = replace(self._grid, step=steps)
            if not descend(form, self._grid, codes):
                break


def _steepest_square(activation: Callable[[Tensor], Tensor], weight: Tensor) -> float:
    """L, the square of the activation function's steepest slope, behind a layer of that weight."""
    values = torch.linspace(-PROBED, PROBED, PROBES, dtype=weight.dtype, device=weight.device)
    channels = len(weight)
    with torch.enable_grad():
        before = values.repeat(channels, 1).requires_grad_()
        after = activation(before)
        (slopes,) = torch.autograd.grad(after.sum(), before)
    return float(slopes.square().amax())
