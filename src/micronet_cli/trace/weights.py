"""Zeros and integer codes of the effective weights, read from the live model."""

import itertools
import math
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from micronet_cli.functional.grids import Grid, find_grid
from micronet_cli.functional.positions import used_blocks
from micronet_cli.layers.effective_weight import EffectiveWeight, effective_weight, incoming_weight
from micronet_cli.layers.fake_quantize import WeightFakeQuantize
from micronet_cli.torch_internals import version_of
from micronet_cli.trace.products import Shape
from micronet_cli.trace.records import FLOAT_BITS, Dot, Stored

REMEMBERED = 32  # numbers of as many states of a weight are kept


@dataclass(frozen=True)
class Found:
    """What was read of one weight; see ``Dot`` and ``Stored`` for the fields.

    Attributes:
        grid: on which a weight without a quantiser lies, or None.
    """

    nonzeros: np.ndarray
    total: int
    extremes: np.ndarray | None = None
    kept_blocks: tuple[int, int, int] | None = None
    binary: bool = False
    grid: Grid | None = None

    def apply(self, dot: Dot, stored: Stored) -> tuple[Dot, Stored]:
        """The records with these numbers."""
        read_dot = replace(dot, nonzeros=self.nonzeros, extremes=self.extremes)
        read_stored = replace(
            stored,
            nonzeros=self.total,
            kept_blocks=self.kept_blocks,
            binary=self.binary,
        )
        return read_dot, read_stored


@dataclass(frozen=True)
class _Remembered:
    """Numbers of one state of a weight, and what the key names by its id, so that nothing else gets that id."""

    found: Found
    owners: tuple[object, ...]


@dataclass(frozen=True)
class View:
    """How the operand of a product lies in the memory of the stored tensor."""

    size: torch.Size
    stride: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, operand: Tensor) -> "View":
        """Read it from the operand."""
        offset = int(operand.storage_offset())
        return cls(operand.shape, operand.stride(), offset)

    def into(self, tensor: Tensor) -> Tensor:
        """The same part of another tensor of the stored one's layout."""
        return tensor.as_strided(self.size, self.stride, self.offset)


class WeightReader:
    """Reads the weight of one product again and again, and only when it changed.

    Args:
        shape: the product as traced, with its weight operand.
        source: the stored tensor that the operand is a view or a gathering of.
        layer: the layer whose ``weight`` property makes the stored tensor, None for a plain parameter or a constant.
        in_codes: whether a quantiser was seen to make it, so that no grid need be looked for.
        rounded: see ``find_grid``.

    Attributes:
        operand: the traced operand, None where the layer's property is read instead.
    """

    def __init__(
        self, shape: Shape, source: Tensor, layer: nn.Module | None, in_codes: bool = False, rounded: bool = False
    ) -> None:
        weight = shape.weight
        self.in_codes = in_codes
        self.rounded = rounded
        self.layer = layer
        self.keep = shape.keep
        self.operand: Tensor | None = None
        self._view = View.of(weight)
        self._source: Tensor | None = None
        self._parts: EffectiveWeight | None = None
        if layer is not None:
            self._parts = effective_weight(layer)
        else:
            self._source = source
            self.operand = weight
        self._remembered: dict[tuple, _Remembered] = {}

    def read(self, codes: bool, block: tuple[int, ...] | None) -> Found:
        """Numbers of the weight as it is now.

        Args:
            codes: read the sums of integer weights too.
            block: shape of the blocks over the weight's first dimensions, None for none.
        """
        key = (self._version(), codes, block)
        remembered = self._remembered.get(key)
        if remembered is not None:
            return remembered.found
        if len(self._remembered) >= REMEMBERED:
            self._remembered.clear()
        owners: tuple[object, ...] = ()
        if self._parts is not None:
            owners = (self._parts.mask, self._parts.fake_quantize)
        found = self._read(codes, block)
        self._remembered[key] = _Remembered(found, owners)
        return found

    def _version(self) -> tuple:
        """Changes whenever the weight may have changed."""
        parts = self._parts
        if self.layer is None or parts is None:
            operand = cast(Tensor, self.operand)
            return (version_of(operand),)
        # Masks, quantisers and their values are part of the chain; a norm's gain may be the layer's own.
        chain = self.layer.parametrizations["weight"]
        own = self.layer.parameters(recurse=False)
        tensors = itertools.chain(own, chain.parameters(), chain.buffers())
        versions = [version_of(tensor) for tensor in tensors]
        quantizer = parts.fake_quantize
        bits = None
        if quantizer is not None:
            bits = quantizer.bits
        return (id(parts.mask), id(quantizer), bits, *versions)

    def _tensor_and_view(self) -> tuple[Tensor, Tensor]:
        """What is stored, and the operand of the product, a view of it or gathered from it."""
        if self.layer is None:
            source = cast(Tensor, self._source)
            operand = cast(Tensor, self.operand)
            return source, operand
        tensor = cast(Tensor, self.layer.weight)
        return tensor, self._view.into(tensor)

    @torch.no_grad()
    def _read(self, codes: bool, block: tuple[int, ...] | None) -> Found:
        tensor, view = self._tensor_and_view()
        if view.is_meta:  # no values, or gathered by an index that has none
            dense = self._all_nonzero(view)
            return Found(dense, tensor.numel())
        total = int(tensor.count_nonzero())
        nonzeros = self._all_nonzero(view)
        if self._is_sparse(tensor.numel(), total):
            nonzeros = self._sum(view != 0)
        found = Found(nonzeros, total)
        if block is not None:
            kept_blocks = _blocks(tensor, block)
            found = replace(found, kept_blocks=kept_blocks)
        quantizer = None
        if self._parts is not None:
            quantizer = self._parts.fake_quantize
        if quantizer is None:
            return self._with_grid(found, view)
        if quantizer.levels == 2:
            found = replace(found, binary=_is_binary(tensor))
        if codes and isinstance(quantizer, WeightFakeQuantize):
            extremes = self._extremes(tensor)
            found = replace(found, extremes=extremes)
        return found

    def _with_grid(self, found: Found, view: Tensor) -> Found:
        """With the grid on which the weight lies, looked for where no quantiser was seen."""
        if self.in_codes:
            return found
        channels = len(found.nonzeros)
        channels_first = view.permute(*self.keep, *self._summed(view))
        rows = channels_first.reshape(channels, -1)
        grid = find_grid(rows, self.rounded)
        if grid is None:
            return found
        has_two_levels = grid.bits == 1 and _is_binary(rows)
        return replace(found, grid=grid, binary=has_two_levels)

    def _all_nonzero(self, view: Tensor) -> np.ndarray:
        """Weights of each channel, [channels]."""
        sizes = [view.shape[dim] for dim in self.keep]
        channels = math.prod(sizes)
        terms = view.numel() // channels
        return np.full(channels, terms)

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
        integers = self._integers(tensor)
        operand = self._view.into(integers)
        positive = self._sum(operand.clamp(min=0))
        negative = self._sum(operand.clamp(max=0))
        return np.stack([positive, negative])

    def _integers(self, tensor: Tensor) -> Tensor:
        """Integer weights: effective weight times scale, which is a whole number up to rounding."""
        assert self._parts is not None
        assert self.layer is not None
        incoming = incoming_weight(self.layer)
        scale, _ = self._parts.qparams(incoming)
        return torch.round(tensor * scale)

    def _sum(self, view: Tensor) -> np.ndarray:
        """Sums over each channel, [channels]."""
        summed = self._summed(view)
        sums = view
        if summed:
            sums = view.sum(summed)
        flat = sums.cpu().numpy().reshape(-1)
        return flat.astype(np.int64)

    def _summed(self, view: Tensor) -> list[int]:
        """The dimensions that a product sums over."""
        return [dim for dim in range(view.dim()) if dim not in self.keep]


def _blocks(weight: Tensor, block: tuple[int, ...]) -> tuple[int, int, int]:
    """See ``Stored.kept_blocks``; dimensions that ``block`` does not name are blocked by 1."""
    dims = weight.dim()
    unnamed = max(dims - len(block), 0)
    ones = (1,) * unnamed
    sizes = (*block, *ones)[:dims]
    nonzero = (weight != 0).cpu().numpy()
    used = used_blocks(nonzero, sizes)
    elements = math.prod(sizes)
    kept = int(used.sum())
    return elements, kept, used.size


def _is_binary(weight: Tensor) -> bool:
    """Whether each output channel holds only plus and minus one magnitude."""
    magnitudes = weight.abs().flatten(1)
    same = magnitudes == magnitudes[:, :1]
    positive = magnitudes > 0
    return bool((same & positive).all())
