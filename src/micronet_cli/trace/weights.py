"""Zeros and integer codes of the effective weights, read from the live model."""

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from micronet_cli.functional.packing import used_blocks
from micronet_cli.layers.effective_weight import effective_weight, original_weight
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


class WeightReader:
    """Reads the weight of one product again and again, and only when it changed.

    Args:
        shape: the product as traced, with its weight operand.
        source: the stored tensor that the operand is a view or a gathering of.
        layer: the layer whose ``weight`` property makes the stored tensor, None for a plain parameter or a constant.
    """

    def __init__(self, shape: Shape, source: Tensor, layer: nn.Module | None) -> None:
        self.layer, self.keep = layer, shape.keep
        self._view = (shape.weight.shape, shape.weight.stride(), shape.weight.storage_offset())
        self._source = source if layer is None else None
        self.operand = None if layer is not None else shape.weight
        if layer is None and shape.weight.is_meta and not source.is_meta:
            self.operand = source.detach().as_strided(*self._view)  # a stand-in was traced
        # Beside the numbers what the key names by its id, so that nothing else gets that id.
        self._found: dict[tuple, tuple[Found, tuple]] = {}
        self._parts = effective_weight(layer) if layer is not None else None

    def read(self, codes: bool, block: tuple[int, ...] | None) -> Found:
        """Numbers of the weight as it is now.

        Args:
            codes: read the sums of integer weights too.
            block: shape of the blocks over the weight's first dimensions, None for none.
        """
        key = (*self._version(), codes, block)
        if key not in self._found:
            if len(self._found) >= REMEMBERED:
                self._found.clear()
            owners = () if self._parts is None else (self._parts.mask, self._parts.fake_quantize)
            self._found[key] = self._read(codes, block), owners
        return self._found[key][0]

    def _version(self) -> tuple:
        parts = self._parts
        if self.layer is None or parts is None:
            return (cast(Tensor, self.operand)._version,)
        mask, quantizer = parts.mask, parts.fake_quantize
        original = self.layer.parametrizations["weight"].original
        steps = () if quantizer is None else (*quantizer.parameters(), *quantizer.buffers())
        return (
            version_of(original),
            None if mask is None else (id(mask), version_of(mask)),
            None if quantizer is None else (id(quantizer), quantizer.bits, *(version_of(step) for step in steps)),
        )

    @torch.no_grad()
    def _read(self, codes: bool, block: tuple[int, ...] | None) -> Found:
        tensor = cast(Tensor, self._source if self.layer is None else self.layer.weight)
        view = cast(Tensor, self.operand) if self.layer is None else tensor.as_strided(*self._view)
        if tensor.is_meta:  # no values: dense
            channels = int(np.prod([view.shape[d] for d in self.keep]))
            return Found(np.full(channels, view.numel() // channels), tensor.numel())
        quantizer = self._quantizer()
        found = Found(self._sum(view != 0), int(tensor.count_nonzero()))
        if not self._is_sparse(tensor.numel(), found.total):
            found = replace(found, nonzeros=np.full(len(found.nonzeros), view.numel() // len(found.nonzeros)))
        if block is not None:
            found = replace(found, kept_blocks=_blocks(tensor, block))
        if quantizer is not None and quantizer.levels == 2:
            found = replace(found, binary=_is_binary(tensor))
        if codes and self.layer is not None and isinstance(quantizer, WeightFakeQuantize):
            integers = self._integers(tensor).as_strided(*self._view)
            extremes = np.stack([self._sum(integers.clamp(min=0)), self._sum(integers.clamp(max=0))])
            found = replace(found, extremes=extremes)
        return found

    def _is_sparse(self, elements: int, nonzeros: int) -> bool:
        """Whether zeros are skipped: in a tensor with a mask, or with so many zeros that a mask would pay in floats.

        A few zeros by chance (random numbers hold some) do not make a tensor sparse.
        """
        masked = self._parts is not None and self._parts.mask is not None
        return masked or (elements - nonzeros) * FLOAT_BITS > elements

    def _quantizer(self) -> FakeQuantize | None:
        return None if self._parts is None else self._parts.fake_quantize

    def _integers(self, tensor: Tensor) -> Tensor:
        """Integer weights: effective weight times scale, which is a whole number up to rounding."""
        assert self._parts is not None
        scale, _ = self._parts.qparams(original_weight(cast(nn.Module, self.layer)))
        return torch.round(tensor * scale)

    def _sum(self, view: Tensor) -> np.ndarray:
        """Sums over each channel, [channels]."""
        over = tuple(d for d in range(view.dim()) if d not in self.keep)
        sums = view.sum(over) if over else view
        return sums.cpu().numpy().reshape(-1).astype(np.int64)


def _blocks(weight: Tensor, block: tuple[int, ...]) -> tuple[int, int, int]:
    """See ``Stored.kept_blocks``; dimensions that ``block`` does not name are blocked by 1."""
    sizes = (*block, *(1 for _ in weight.shape[len(block) :]))[: weight.dim()]
    used = used_blocks((weight != 0).cpu().numpy(), sizes)
    return int(np.prod(sizes)), int(used.sum()), used.size


def _is_binary(weight: Tensor) -> bool:
    """Whether each output channel holds only plus and minus one magnitude."""
    magnitudes = weight.abs().flatten(1)
    return bool(((magnitudes == magnitudes[:, :1]) & (magnitudes > 0)).all())
