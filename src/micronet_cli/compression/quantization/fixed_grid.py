"""Weights on a stored grid: what rounding decided survives a checkpoint."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from micronet_cli.layers.effective_weight import effective_weight, incoming_weight, keep_standardized
from micronet_cli.layers.fake_quantize import WeightFakeQuantize
from micronet_cli.layers.rules import compressible_layers


class FixedGrid(WeightFakeQuantize):
    """Range-linear with the scale and zero point that were found once.

    A range taken anew from rounded weights would be another one as soon as an extreme weight was rounded inwards.

    Attributes:
        scale, zero_point: [C_out, 1, ...] or 0-dim, as ``range_linear`` has them.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, tracked: WeightFakeQuantize, weight: Tensor) -> None:
        super().__init__(tracked.bits, tracked.granularity, tracked.symmetric)
        scale, zero_point = tracked.qparams(weight)
        self.register_buffer("scale", scale.clone())
        self.register_buffer("zero_point", zero_point.clone())

    def qparams(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point, whatever the weight."""
        return self.scale, self.zero_point


@dataclass
class FixedGrids:
    """Every range-linear weight of a network on a stored grid: part of a network's history, after its quantiser.

    Attributes:
        standardize_once: a weight that its layer standardises before every call is standardised now and never again, so
            that it can be written on its grid. Networks of earlier versions go on as they were.
    """

    standardize_once: bool = False

    @property
    def reads_gradients(self) -> bool:
        """False: nothing is trained."""
        return False

    @torch.no_grad()
    def attach(self, model: nn.Module) -> None:
        """Take the ranges of the weights as they are; a checkpoint's take their place on loading.

        Raises:
            ValueError: a layer's weight scheme is another one.
        """
        for name, layer in compressible_layers(model).items():
            parts = effective_weight(layer)
            if parts is None:
                continue
            quantizer = parts.fake_quantize
            if quantizer is None or isinstance(quantizer, FixedGrid):
                continue
            # Not a subclass: those have grids of their own.
            if type(quantizer) is not WeightFakeQuantize:
                scheme = type(quantizer).__name__
                raise ValueError(
                    f"quantize.weight: {name} has {scheme}; must be range-linear, as with "
                    "quantize=w4a4, w8a8, symmetric or micronet2019"
                )
            if self.standardize_once:
                keep_standardized(layer)
            masked = parts.masked(incoming_weight(layer))
            parts.fake_quantize = FixedGrid(quantizer, masked)

    def update(self, step: int, total_steps: int) -> bool:
        """Nothing moves."""
        return True

    def table(self, model: nn.Module) -> dict[str, dict[str, object]]:
        """Nothing to show: the quantiser before it has the layers' rules."""
        return {}
