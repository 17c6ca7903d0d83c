"""A block's weights are rounded, and its activations' ranges set, so that what it gives stays.

BRECQ (Li et al., arXiv 2102.05426) judges a block by its output; QDrop (Wei et al., arXiv 2203.05740) lets a part of the
activations go on in float meanwhile.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from micronet_cli.compression.quantization.block_data import BlockData
from micronet_cli.compression.quantization.fixed_grid import FixedGrid
from micronet_cli.compression.quantization.soft_rounding import LearnedWidth, SoftRounding
from micronet_cli.functional.adaptive_rounding import annealed_beta, rounding_regularizer
from micronet_cli.layers.effective_weight import effective_weight, has_computed_weight, original_weight
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, FakeQuantize
from micronet_cli.trace.blocks import Block


@dataclass(frozen=True)
class BlockReconstruction:
    """How a block learns.

    Attributes:
        iterations: steps of Adam a block.
        batch_size: images a step; fewer where they would not fit into memory.
        lr: Adam's learning rate of the rounding variables.
        width_lr: that of the factors on the activations' ranges, which falls to 0 by half a cosine.
        regularization: lambda, the weight of the term that drives every h to 0 or 1, beside a relative error.
        warmup: part of the steps without it, in [0, 1).
        drop: probability that an activation goes on in float, in [0, 1].
    """

    iterations: int = 1000
    batch_size: int = 32
    lr: float = 0.01
    width_lr: float = 0.001
    regularization: float = 0.01
    warmup: float = 0.2
    drop: float = 0.5

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        for name in ("lr", "width_lr", "regularization"):
            value = getattr(self, name)
            if value <= 0:
                raise ValueError(f"{name}={value}: must be above 0")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup={self.warmup}: must be a fraction of the steps in [0, 1)")
        if not 0 <= self.drop <= 1:
            raise ValueError(f"drop={self.drop}: must be a probability in [0, 1]")


class LearningBlock:
    """A block of a quantised network, and what of it can learn.

    Args:
        learns: bits of a weight -> whether its rounding is learned.
        generator: draws images and what goes on in float; on the CPU.
    """

    def __init__(
        self,
        block: Block,
        model: nn.Module,
        settings: BlockReconstruction,
        learns: Callable[[float], bool],
        generator: torch.Generator,
    ) -> None:
        self._block = block
        self._model = model
        self._module = model.get_submodule(block.name)
        self._settings = settings
        self._generator = generator
        self._weights = []
        for name in block.layers:
            layer = model.get_submodule(name)
            if _has_rounding(layer, learns):
                self._weights.append(layer)

    def error(self, data: BlockData, batch_size: int) -> float:
        """||f(x) - f'(x')||^2 over ||f(x)||^2, over all images."""
        total = 0.0
        with torch.no_grad():
            for x, target in data.batches(batch_size):
                difference = self._block.run(self._model, x) - target
                total += float(difference.square().sum())
        return total / (data.size * data.images)

    def learn(self, data: BlockData, batch_size: int) -> None:
        """Round the weights and set the ranges."""
        roundings = []
        for layer in self._weights:
            parts = effective_weight(layer)
            stand_in = SoftRounding(parts.fake_quantize, original_weight(layer), parts.mask)
            roundings.append(_Place(parts, "fake_quantize", parts.fake_quantize, stand_in))
        widths = []
        for owner, key, quantizer in _tracked_ranges(self._module):
            stand_in = LearnedWidth(quantizer, self._settings.drop, self._generator)
            widths.append(_Place(owner, key, quantizer, stand_in))
        if not roundings and not widths:
            return
        with _frozen(self._module), _standing_in([*roundings, *widths]):
            self._descend(data, batch_size, roundings, widths)
        with torch.no_grad():
            for layer, place in zip(self._weights, roundings, strict=True):
                original_weight(layer).copy_(place.stand_in.rounded())
            for place in widths:
                factor = place.stand_in.factor()
                place.quantizer.low.mul_(factor)
                place.quantizer.high.mul_(factor)

    def _descend(
        self, data: BlockData, batch_size: int, roundings: Sequence["_Place"], widths: Sequence["_Place"]
    ) -> None:
        settings = self._settings
        groups = [
            {"params": [place.stand_in.variables for place in roundings], "lr": settings.lr},
            {"params": [place.stand_in.width for place in widths], "lr": settings.width_lr},
        ]
        optimizer = torch.optim.Adam(groups)
        for step in range(settings.iterations):
            progress = step / settings.iterations
            optimizer.param_groups[1]["lr"] = settings.width_lr * (1 + math.cos(math.pi * progress)) / 2
            x, target = data.drawn(batch_size, settings.drop, self._generator)
            difference = self._block.run(self._model, x) - target
            loss = difference.square().sum() / (data.size * len(x))
            beta = annealed_beta(progress, settings.warmup)
            if beta is not None:
                for place in roundings:
                    undecided = rounding_regularizer(place.stand_in.fraction(), beta)
                    loss = loss + settings.regularization * undecided
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@dataclass(frozen=True)
class _Place:
    """A quantiser that something else stands in for."""

    owner: nn.Module
    key: str
    quantizer: FakeQuantize
    stand_in: FakeQuantize


@contextmanager
def _standing_in(places: Sequence[_Place]) -> Iterator[None]:
    for place in places:
        setattr(place.owner, place.key, place.stand_in)
    try:
        yield
    finally:
        for place in places:
            setattr(place.owner, place.key, place.quantizer)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No parameter of the module gets a gradient inside the block."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _has_rounding(layer: nn.Module, learns: Callable[[float], bool]) -> bool:
    parts = effective_weight(layer)
    if parts is None or not isinstance(parts.fake_quantize, FixedGrid) or has_computed_weight(layer):
        return False
    return learns(parts.fake_quantize.bits)


def _tracked_ranges(module: nn.Module) -> Iterator[tuple[nn.Module, str, ActivationFakeQuantize]]:
    """Where in a module quantisers with a tracked range hang: owner, name of the child, quantiser."""
    for owner in module.modules():
        for key, child in owner.named_children():
            # Not a subclass: those have steps of their own.
            if type(child) is ActivationFakeQuantize:
                yield owner, key, child
