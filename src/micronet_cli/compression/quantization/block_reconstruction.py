"""A block's weights are rounded, and its activations' ranges set, so that what it gives stays.

BRECQ (Li et al., arXiv 2102.05426) judges a block by its output; QDrop (Wei et al., arXiv 2203.05740) lets a part of
the activations go on in float meanwhile.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from micronet_cli.compression.quantization.block_data import BlockData
from micronet_cli.compression.quantization.fixed_grid import FixedGrid
from micronet_cli.compression.quantization.soft_rounding import LearnedWidth, SoftRounding
from micronet_cli.functional.adaptive_rounding import annealed_beta, rounding_regularizer
from micronet_cli.layers.effective_weight import effective_weight, has_computed_weight, original_weight
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, FakeQuantize
from micronet_cli.layers.rules import COMPRESSIBLE, shared_parameters
from micronet_cli.torch_internals import BatchNorm
from micronet_cli.trace.blocks import Block


@dataclass(frozen=True)
class BlockReconstruction:
    """How a block learns.

    Attributes:
        iterations: steps of Adam a block.
        batch_size: images a step; fewer of a block that would take more than 256 MiB for them.
        lr: Adam's learning rate of the rounding variables.
        width_lr: that of the factors on the activations' ranges, which falls to 0 by half a cosine.
        bias_lr: that of the biases, in units of the root mean square of what the block gives; falls alike.
        regularization: lambda, the weight of the term that drives every h to 0 or 1, beside a relative error.
        warmup: part of the steps without it, in [0, 1).
        drop: probability that an activation goes on in float, in [0, 1].
    """

    iterations: int = 600
    batch_size: int = 32
    lr: float = 0.01
    width_lr: float = 0.001
    bias_lr: float = 0.001
    regularization: float = 0.01
    warmup: float = 0.2
    drop: float = 0.5

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        for name in ("lr", "width_lr", "bias_lr", "regularization"):
            value = getattr(self, name)
            if value <= 0:
                raise ValueError(f"{name}={value}: must be above 0")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup={self.warmup}: must be a fraction of the steps in [0, 1)")
        if not 0 <= self.drop <= 1:
            raise ValueError(f"drop={self.drop}: must be a probability in [0, 1]")


class LearningBlock:
    """A block of a quantised network, and what of it can learn; its weights as they are now are those in float.

    Args:
        learns: bits of a weight -> whether its rounding is learned.
        correct_bias: whether biases are learned too.
        generator: draws images and what goes on in float; on the CPU.
    """

    def __init__(
        self,
        block: Block,
        model: nn.Module,
        settings: BlockReconstruction,
        learns: Callable[[float], bool],
        correct_bias: bool,
        generator: torch.Generator,
    ) -> None:
        self._block = block
        self._model = model
        self._module = model.get_submodule(block.name)
        self._settings = settings
        self._generator = generator
        self._layers = []
        for name in block.layers:
            layer = model.get_submodule(name)
            if _has_rounding(layer, learns):
                self._layers.append(layer)
        self._in_float = []
        for layer in self._layers:
            weight = original_weight(layer).detach()
            self._in_float.append(weight.clone())
        self._biases: list[nn.Parameter] = []
        if correct_bias:
            self._biases = _own_biases(self._module, shared_parameters(model))

    def error(self, data: BlockData, batch_size: int) -> float:
        """||f(x) - f'(x')||^2 over ||f(x)||^2, over all images."""
        total = 0.0
        with torch.no_grad():
            for x, target in data.batches(batch_size):
                difference = self._block.run(self._model, x) - target
                total += float(difference.square().sum())
        return total / (data.size * data.images)

    def learn(self, data: BlockData, batch_size: int) -> None:
        """Round the weights, set the ranges and the biases."""
        weights = self._stand_ins_of_weights()
        ranges = self._stand_ins_of_ranges()
        if not weights and not ranges:
            return
        with _learning_alone(self._module, self._biases), _standing_in([*weights, *ranges]):
            self._descend(data, batch_size, weights, ranges)
        with torch.no_grad():
            for layer, place in zip(self._layers, weights, strict=True):
                original_weight(layer).copy_(place.stand_in.rounded())
            for place in ranges:
                place.stand_in.widen(place.quantizer)

    def _stand_ins_of_weights(self) -> list["_Place"]:
        places = []
        for layer, in_float in zip(self._layers, self._in_float, strict=True):
            parts = effective_weight(layer)
            assert parts is not None
            grid = parts.fake_quantize
            assert isinstance(grid, FixedGrid)
            rounding = SoftRounding(grid, original_weight(layer), in_float, parts.mask)
            places.append(_Place(parts, "fake_quantize", grid, rounding))
        return places

    def _stand_ins_of_ranges(self) -> list["_Place"]:
        places = []
        for owner, key, quantizer in _tracked_ranges(self._module):
            width = LearnedWidth(quantizer, self._settings.drop, self._generator)
            places.append(_Place(owner, key, quantizer, width))
        return places

    def _descend(
        self, data: BlockData, batch_size: int, weights: Sequence["_Place"], ranges: Sequence["_Place"]
    ) -> None:
        settings = self._settings
        roundings = [place.stand_in for place in weights]
        variables = [rounding.variables for rounding in roundings]
        widths = [place.stand_in.width for place in ranges]
        bias_lr = settings.bias_lr * data.root_mean_square
        groups = [
            {"params": variables, "lr": settings.lr},
            {"params": widths, "lr": settings.width_lr},
            {"params": self._biases, "lr": bias_lr},
        ]
        optimizer = torch.optim.Adam(groups)
        falling = partial(_falling, steps=settings.iterations)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [_constant, falling, falling])
        for step in range(settings.iterations):
            x, target = data.drawn(batch_size, settings.drop, self._generator)
            difference = self._block.run(self._model, x) - target
            size = data.size * len(x)
            loss = difference.square().sum() / size
            beta = annealed_beta(step / settings.iterations, settings.warmup)
            if beta is not None:
                for rounding in roundings:
                    undecided = rounding_regularizer(rounding.fraction(), beta)
                    loss = loss + settings.regularization * undecided
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


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
def _learning_alone(module: nn.Module, learning: Sequence[nn.Parameter]) -> Iterator[None]:
    """Of all parameters of the module only these get a gradient inside the block."""
    before = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    module.requires_grad_(False)
    for parameter in learning:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)
        for parameter in learning:
            parameter.grad = None


def _own_biases(module: nn.Module, shared: set[Tensor]) -> list[nn.Parameter]:
    """The biases of a module's layers and BatchNorms that nothing else uses."""
    found = []
    for part in module.modules():
        if not isinstance(part, (*COMPRESSIBLE, BatchNorm)):
            continue
        bias = dict(part.named_parameters(recurse=False)).get("bias")
        if bias is not None and bias not in shared:
            found.append(bias)
    return found


def _constant(step: int) -> float:
    """A learning rate that stays."""
    return 1.0


def _falling(step: int, steps: int) -> float:
    """One that falls to 0 by half a cosine.

    >>> _falling(0, 10), _falling(5, 10), _falling(10, 10)
    (1.0, 0.5, 0.0)
    """
    angle = math.pi * step / steps
    return (1 + math.cos(angle)) / 2


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
