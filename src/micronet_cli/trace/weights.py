"""Zeros and integer codes of the effective weights, read from the live model."""

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from micronet_cli.functional.positions import used_blocks
from micronet_cli.layers.effective_weight import EffectiveWeight, effective_weight, original_weight
from micronet_cli.layers.fake_quantize import FakeQuantize, WeightFakeQuantize
from micronet_cli.torch_internals import version_of
from micronet_cli.trace.products import Shape
from micronet_cli.trace.records import FLOAT_BITS, Dot, Stored

REMEMBERED = 32  # numbers of as many states of a weight are kept


@dataclass(frozen=True)
class Found:
    """What was read of one weight; see ``Dot`` and ``Stored`` for the fields."""

    nonzeros: np.ndarray
    total: int
    extremes: np.ndarray | None = None
    kept_blocks: tuple[int, int, int] | None = None
    binary: bool = False

    def apply(self, dot: Dot, stored: Stored) -> tuple[Dot, Stored]:
        """The records with these numbers."""
        dot = replace(dot, nonzeros=self.nonzeros, extremes=self.extremes)
        return dot, replace(stored, nonzeros=self.total, kept_blocks=self.kept_blocks, binary=self.binary)


@dataclass(frozen=True)
class _Remembered:
    """Numbers of one state of a weight, and what the key names by its id, so that nothing else gets that id."""

    found: Found
    owners: tuple[object, ...]


class WeightReader:
    """Reads the weight of one product again and again, and only when it changed.

    Args:
        shape: the product as traced, with its weight operand.
        source: the stored tensor that the operand is a view or a gathering of.
        layer: the layer whose ``weight`` property makes the stored tensor, None for a plain parameter or a constant.

    Attributes:
        operand: the traced operand, None where the layer's property is read instead.
    """

    def __init__(self, shape: Shape, source: Tensor, layer: nn.Module | None) -> None:
        weight = shape.weight
        self.layer = layer
        self.keep = shape.keep
        self.operand: Tensor | None = None
        self._view = (weight.shape, weight.stride(), weight.storage_offset())
        self._source: Tensor | None = None
        self._parts: EffectiveWeight | None = None
        if layer is not None:
            self._parts = effective_weight(layer)
        else:
            self._source = source
            self.operand = weight
            # A recurrent kernel got a meta tensor in the place of the parameter, whose values are read instead.
            if weight.is_meta and not source.is_meta:
                self.operand = source.detach().as_strided(*self._view)
        self._remembered: dict[tuple, _Remembered] = {}

    def read(self, codes: bool, block: tuple[int, ...] | None) -> Found:
        """Numbers of the weight as it is now.

        Args:
            codes: read the sums of integer weights too.
            block: shape of the blocks over the weight's first dimensions, None for none.
        """
        key = (*self._version(), codes, block)
        remembered = self._remembered.get(key)
        if remembered is None:
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            owners: tuple[object, ...] = ()
            if self._parts is not None:
                owners = (self._parts.mask, self._parts.fake_quantize)
            found = self._read(codes, block)
            remembered = _Remembered(found, owners)
            self._remembered[key] = remembered
        return remembered.found

    def _version(self) -> tuple:
        """Changes whenever the weight may have changed."""
        parts = self._parts
        if self.layer is None or parts is None:
            return (version_of(cast(Tensor, self.operand)),)
        original = version_of(self.layer.parametrizations["weight"].original)
        mask = _mask_version(parts.mask)
        quantizer = _quantizer_version(parts.fake_quantize)
        return original, mask, quantizer

    def _tensor_and_view(self) -> tuple[Tensor, Tensor]:
        """What is stored, and the operand of the product, a view of it or gathered from it."""
        if self.layer is None:
            return cast(Tensor, self._source), cast(Tensor, self.operand)
        tensor = cast(Tensor, self.layer.weight)
        return tensor, tensor.as_strided(*self._view)

    @torch.no_grad()
    def _read(self, codes: bool, block: tuple[int, ...] | None) -> Found:
        tensor, view = self._tensor_and_view()
        if tensor.is_meta:  # no values: dense
            channels = int(np.prod([view.shape[dim] for dim in self.keep]))
            dense = np.full(channels, view.numel() // channels)
            return Found(dense, tensor.numel())
        nonzeros = self._sum(view != 0)
        total = int(tensor.count_nonzero())
        if not self._is_sparse(tensor.numel(), total):
            channels = len(nonzeros)
            nonzeros = np.full(channels, view.numel() // channels)
        found = Found(nonzeros, total)
        if block is not None:
            found = replace(found, kept_blocks=_blocks(tensor, block))
        quantizer = None if self._parts is None else self._parts.fake_quantize
        if quantizer is not None and quantizer.levels == 2:
            found = replace(found, binary=_is_binary(tensor))
        if codes and isinstance(quantizer, WeightFakeQuantize):
            found = replace(found, extremes=self._extremes(tensor))
        return found

    def _is_sparse(self, elements: int, nonzeros: int) -> bool:
        """Whether zeros are skipped: in a tensor with a mask, or with so many zeros that a mask would pay in floats.

        A few zeros by chance (random numbers hold some) do not make a tensor sparse.
        """
        if self._parts is not None and self._parts.mask is not None:
            return True
        zeros = elements - nonzeros
        return zeros * FLOAT_BITS > elements

    def _extremes(self, tensor: Tensor) -> np.ndarray:
        """Sums of the positive and of the negative integer weights, [2, channels]."""
        integers = self._integers(tensor).as_strided(*self._view)
        positive = self._sum(integers.clamp(min=0))
        negative = self._sum(integers.clamp(max=0))
        return np.stack([positive, negative])

    def _integers(self, tensor: Tensor) -> Tensor:
        """Integer weights: effective weight times scale, which is a whole number up to rounding."""
        assert self._parts is not None
        assert self.layer is not None
        scale, _ = self._parts.qparams(original_weight(self.layer))
        return torch.round(tensor * scale)

    def _sum(self, view: Tensor) -> np.ndarray:
        """Sums over each channel, [channels]."""
        summed = tuple(dim for dim in range(view.dim()) if dim not in self.keep)
        sums = view.sum(summed) if summed else view
        return sums.cpu().numpy().reshape(-1).astype(np.int64)


def _mask_version(mask: Tensor | None) -> tuple | None:
    return None if mask is None else (id(mask), version_of(mask))


def _quantizer_version(quantizer: FakeQuantize | None) -> tuple | None:
    if quantizer is None:
        return None
    steps = [version_of(tensor) for tensor in (*quantizer.parameters(), *quantizer.buffers())]
    return (id(quantizer), quantizer.bits, *steps)


def _blocks(weight: Tensor, block: tuple[int, ...]) -> tuple[int, int, int]:
    """See ``Stored.kept_blocks``; dimensions that ``block`` does not name are blocked by 1."""
    unnamed = max(weight.dim() - len(block), 0)
    sizes = (*block, *[1] * unnamed)[: weight.dim()]
    used = used_blocks((weight != 0).cpu().numpy(), sizes)
    elements = int(np.prod(sizes))
    kept = int(used.sum())
    return elements, kept, used.size


def _is_binary(weight: Tensor) -> bool:
    """Whether each output channel holds only plus and minus one magnitude."""
    magnitudes = weight.abs().flatten(1)
    same = magnitudes == magnitudes[:, :1]
    return bool((same & (magnitudes > 0)).all())
