"""One layer at a time pruned or quantised, by the means that the compressors have."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from micronet_cli.distributed import range_over_ranks
from micronet_cli.functional.masks import shrink_mask
from micronet_cli.functional.pruning import magnitude
from micronet_cli.layers.copies import copied
from micronet_cli.layers.effective_weight import (
    EffectiveWeight,
    attach_effective_weight,
    incoming_weight,
    original_weight,
)
from micronet_cli.layers.fake_quantize import (
    ActivationFakeQuantize,
    WeightFakeQuantize,
    attach_input_fake_quantize,
)
from micronet_cli.layers.layer_input import watch_input
from micronet_cli.layers.rules import compressible_layers

SPARSITY = "sparsity"
WEIGHT_BITS = "weight_bits"
ACTIVATION_BITS = "activation_bits"
KINDS = (SPARSITY, WEIGHT_BITS, ACTIVATION_BITS)
Importance = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Point:
    """One layer, all else as it is, at a sparsity in [0, 1), or with its weights or its inputs at so many bits."""

    layer: str
    kind: str
    value: float


Points = Sequence[Point]


class Trial:
    """A copy of a network, any layer of which can be changed for a while.

    Attributes:
        model: the copy, in evaluation mode, its parameters frozen: gradients are those of what depends on the images.
        layers: every convolution and linear layer by name.
        ranges: layer -> the quantiser that has watched its input; only layers that were called have one.
    """

    def __init__(self, model: nn.Module, importance: Importance = magnitude) -> None:
        self.model = copied(model).eval()
        self.model.requires_grad_(False)
        self.layers = compressible_layers(self.model)
        self.ranges: dict[str, ActivationFakeQuantize] = {}
        self._importance = importance
        self._effective: dict[str, EffectiveWeight] = {}
        self._own_masks: dict[str, Tensor | None] = {}
        self._masks: dict[tuple[str, float], Tensor] = {}
        for name, layer in self.layers.items():
            effective = attach_effective_weight(layer)
            self._effective[name] = effective
            self._own_masks[name] = effective.mask

    @torch.no_grad()
    def watch_inputs(self, batches: Iterable[Tensor]) -> int:
        """Track every layer's input range over ``batches`` of images ``[N, C, H, W]``, as training would.

        Returns:
            how many batches there were; each process may have another number.
        """
        handles = []
        watching = {}
        for name, layer in self.layers.items():
            device = original_weight(layer).device
            watching[name] = ActivationFakeQuantize(bits=8).to(device)
            handles.append(_track_input(layer, watching[name]))
        count = 0
        for images in batches:
            self.model(images)
            count += 1
        for handle in handles:
            handle.remove()
        self.ranges = {}
        for name, quantizer in watching.items():
            low, high = range_over_ranks(quantizer.low, quantizer.high)
            quantizer.low = low
            quantizer.high = high
            if quantizer.seen > 0:
                self.ranges[name] = quantizer.eval()
        return count

    def points(
        self, sparsities: Sequence[float], weight_bits: Sequence[float], activation_bits: Sequence[float]
    ) -> list[Point]:
        """Every point that can be tried, layer by layer."""
        found = []
        for layer in self.layers:
            values = {SPARSITY: sparsities, WEIGHT_BITS: weight_bits}
            if layer in self.ranges:
                values[ACTIVATION_BITS] = activation_bits
            for kind, those in values.items():
                found += [Point(layer, kind, value) for value in those]
        return found

    @contextmanager
    def changed(self, point: Point) -> Iterator[None]:
        """Within the block the network computes with ``point``."""
        layer = self.layers[point.layer]
        effective = self._effective[point.layer]
        own_mask = effective.mask
        own_weight_quantizer = effective.fake_quantize
        own_input_quantizer = getattr(layer, "input_fake_quantize", None)
        if point.kind == SPARSITY:
            effective.mask = self.mask(point.layer, point.value)
        elif point.kind == WEIGHT_BITS:
            effective.fake_quantize = WeightFakeQuantize(point.value)
        else:
            attach_input_fake_quantize(layer, self.input_quantizer(point))
        try:
            yield
        finally:
            effective.mask = own_mask
            effective.fake_quantize = own_weight_quantizer
            if point.kind == ACTIVATION_BITS:
                attach_input_fake_quantize(layer, own_input_quantizer)

    def input_quantizer(self, point: Point) -> ActivationFakeQuantize:
        """The watched range at the point's bits."""
        quantizer = self.ranges[point.layer]
        quantizer.bits = point.value
        return quantizer

    def mask(self, layer: str, sparsity: float) -> Tensor:
        """The mask of a sparsity, on top of one that was there; ranked once, kept as bools."""
        key = (layer, sparsity)
        if key not in self._masks:
            self._masks[key] = self._ranked(layer, sparsity)
        return self._masks[key]

    def _ranked(self, layer: str, sparsity: float) -> Tensor:
        incoming = incoming_weight(self.layers[layer]).detach()
        weight = self._effective[layer].masked(incoming)
        kept = self._own_masks[layer]
        if kept is None:
            kept = torch.ones_like(weight, dtype=torch.bool)
        importance = self._importance(weight)
        return shrink_mask(importance, kept, sparsity)


def _track_input(layer: nn.Module, quantizer: ActivationFakeQuantize) -> RemovableHandle:
    def track(x: Tensor) -> None:
        low, high = quantizer.estimate(x, quantizer.bits)
        quantizer.track(low, high)

    return watch_input(layer, track)
