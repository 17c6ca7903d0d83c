"""One layer at a time pruned or quantised, by the means that the compressors have."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from micronet_cli.distributed import range_over_ranks
from micronet_cli.functional.pruning import magnitude, shrink_mask
from micronet_cli.layers.copies import copied
from micronet_cli.layers.effective_weight import attach_effective_weight, original_weight
from micronet_cli.layers.fake_quantize import (
    ActivationFakeQuantize,
    WeightFakeQuantize,
    attach_input_fake_quantize,
)
from micronet_cli.layers.layer_input import watch_input
from micronet_cli.layers.rules import compressible_layers

SPARSITY, WEIGHT_BITS, ACTIVATION_BITS = KINDS = ("sparsity", "weight_bits", "activation_bits")


@dataclass(frozen=True)
class Point:
    """One layer, all else as it is, at a sparsity in [0, 1), or with its weights or its inputs at so many bits."""

    layer: str
    kind: str
    value: float


class Trial:
    """A copy of a network, any layer of which can be changed for a while.

    Attributes:
        model: the copy, in evaluation mode, its parameters frozen: gradients are those of what depends on the images.
        layers: every convolution and linear layer by name.
        ranges: layer -> the quantiser that has watched its input; only layers that were called have one.
    """

    def __init__(self, model: nn.Module, importance: Callable[[Tensor], Tensor] = magnitude) -> None:
        self.model = copied(model).eval().requires_grad_(False)
        self.layers = compressible_layers(self.model)
        self.ranges: dict[str, ActivationFakeQuantize] = {}
        self._importance = importance
        self._effective = {name: attach_effective_weight(layer) for name, layer in self.layers.items()}
        self._own_masks = {name: effective.mask for name, effective in self._effective.items()}
        self._masks: dict[tuple[str, float], Tensor] = {}

    @torch.no_grad()
    def watch_inputs(self, batches: Iterable[Tensor]) -> int:
        """Track every layer's input range over ``batches`` of images ``[N, C, H, W]``, as training would.

        Returns:
            how many batches there were; each process may have another number.
        """
        handles = []
        for name, layer in self.layers.items():
            quantizer = ActivationFakeQuantize(bits=8).to(original_weight(layer).device)

            def observe(x: Tensor, seen: ActivationFakeQuantize = quantizer) -> None:
                seen.track(*seen.estimate(x, seen.bits))

            handles.append(watch_input(layer, observe))
            self.ranges[name] = quantizer.eval()
        count = 0
        for images in batches:
            self.model(images)
            count += 1
        for handle in handles:
            handle.remove()
        for quantizer in self.ranges.values():
            quantizer.low, quantizer.high = range_over_ranks(quantizer.low, quantizer.high)
        self.ranges = {name: quantizer for name, quantizer in self.ranges.items() if quantizer.seen > 0}
        return count

    def points(
        self, sparsities: Sequence[float], weight_bits: Sequence[float], activation_bits: Sequence[float]
    ) -> list[Point]:
        """Every point that can be tried, layer by layer."""
        return [
            Point(layer, kind, value)
            for layer in self.layers
            for kind, values in zip(KINDS, (sparsities, weight_bits, activation_bits), strict=True)
            if kind != ACTIVATION_BITS or layer in self.ranges
            for value in values
        ]

    @contextmanager
    def changed(self, point: Point) -> Iterator[None]:
        """Within the block the network computes with ``point``."""
        layer, effective = self.layers[point.layer], self._effective[point.layer]
        mask, quantizer = effective.mask, effective.fake_quantize
        before = getattr(layer, "input_fake_quantize", None)
        if point.kind == SPARSITY:
            effective.mask = self.mask(point.layer, point.value)
        elif point.kind == WEIGHT_BITS:
            effective.fake_quantize = WeightFakeQuantize(point.value)
        else:
            attach_input_fake_quantize(layer, self.input_quantizer(point))
        try:
            yield
        finally:
            effective.mask, effective.fake_quantize = mask, quantizer
            if point.kind == ACTIVATION_BITS:
                attach_input_fake_quantize(layer, before)

    def input_quantizer(self, point: Point) -> ActivationFakeQuantize:
        """The watched range at the point's bits."""
        quantizer = self.ranges[point.layer]
        quantizer.bits = point.value
        return quantizer

    def mask(self, layer: str, sparsity: float) -> Tensor:
        """The mask of a sparsity, on top of one that was there; ranked once, kept as bools."""
        if (layer, sparsity) not in self._masks:
            weight, own = original_weight(self.layers[layer]).detach(), self._own_masks[layer]
            kept = torch.ones_like(weight, dtype=torch.bool) if own is None else own
            self._masks[layer, sparsity] = shrink_mask(self._importance(weight * kept), kept, sparsity)
        return self._masks[layer, sparsity]
