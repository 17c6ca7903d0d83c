"""Stored grids over the ranges that an estimate finds, times the factor that rounding owes each range."""

import torch
from torch import Tensor, nn

from micronet_cli.compression.quantization.adaround import AdaRound
from micronet_cli.compression.quantization.fixed_grid import FixedGrid
from micronet_cli.functional.quantization import fake_quantize
from micronet_cli.functional.weight_ranges import WeightRange, gain
from micronet_cli.layers.effective_weight import effective_weight, has_computed_weight, original_weight
from micronet_cli.layers.rules import compressible_layers, shared_parameters

# From here on learned rounding, which moves what clipping would not let it, ends as near on a weight's own range.
ENOUGH_BITS = 3


@torch.no_grad()
def set_weight_ranges(model: nn.Module, weight_range: WeightRange, adaround: AdaRound | None = None) -> None:
    """Move every stored grid to its range by ``weight_range``, so that <w', w> = <w, w> for each w that has one.

    The factor is free: it goes into the grid's scale. The weight behind the grid is multiplied by it too, which leaves
    its codes as they are. A weight that cannot be multiplied alone, since another layer has it too or it is made of
    other tensors, keeps the grid that it has, and so does one of ``ENOUGH_BITS`` whose rounding is learned.

    Args:
        model: with ``FixedGrids``; changed in place.
        weight_range: see ``functional.weight_ranges``.
        adaround: which weights' rounding is learned; None: no weight's.
    """
    shared = shared_parameters(model)
    for layer in compressible_layers(model).values():
        parts = effective_weight(layer)
        if parts is None or not isinstance(parts.fake_quantize, FixedGrid):
            continue
        grid = parts.fake_quantize
        is_learned = adaround is not None and adaround.learns(grid.bits)
        if is_learned and grid.bits >= ENOUGH_BITS:
            continue
        original = original_weight(layer)
        if has_computed_weight(layer) or original in shared:
            continue
        factor = _set_range(grid, parts.masked(original), weight_range)
        original.mul_(factor)


def _set_range(grid: FixedGrid, weight: Tensor, weight_range: WeightRange) -> Tensor:
    """Move the grid of ``weight``; the factor that is in its scale, of the scale's shape."""
    rows = weight.reshape(grid.scale.numel(), -1)

    def rounded_within(low: Tensor, high: Tensor) -> Tensor:
        scale, zero_point = grid.qparams_within(low, high)
        return fake_quantize(rows, scale, zero_point, grid.largest)

    low, high = weight_range(rows, rounded_within)
    factor = gain(rows, rounded_within(low, high))
    scale, zero_point = grid.qparams_within(low, high)
    scale = scale / factor
    grid.scale.copy_(scale.view_as(grid.scale))
    grid.zero_point.copy_(zero_point.view_as(grid.zero_point))
    return factor.view_as(grid.scale)
