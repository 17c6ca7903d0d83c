"""From an operator's arguments to the shape of its dot products, and where its weight is to be read."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from micronet_cli.trace.records import Dot

WITH_ADDEND = frozenset({"addmm", "baddbmm"})  # their first argument is added to the product of the next two


@dataclass(frozen=True, slots=True)
class Shape:
    """Dot products of one operator, before anything is known about bits and zeros.

    Attributes:
        weight, bias: the operands that may be parameters.
        data: the operand that is not the weight.
        keep: dimensions of the weight that number its channels; the others are summed over.
        channel_dim: dimension of the output that numbers the channels.
    """

    data: Tensor
    weight: Tensor
    bias: Tensor | None
    keep: tuple[int, ...]
    terms: int
    channels: int
    repeats: int
    outputs: int
    spatial: int = 1
    groups: int = 1
    channel_dim: int = 1

    @property
    def multiplications(self) -> int:
        """Dense multiplications."""
        return self.terms * self.channels * self.repeats

    def dot(self, weight: int | None, bias: int | None) -> Dot:
        """The plain-data record, dense for now; ``weight`` and ``bias`` are indices of stored tensors."""
        return Dot(
            weight=weight,
            bias=bias,
            terms=self.terms,
            nonzeros=np.full(self.channels, self.terms),
            repeats=self.repeats,
            outputs=self.outputs,
            spatial=self.spatial,
            groups=self.groups,
            channel_dim=self.channel_dim,
        )


def product_shape(kind: str, args: tuple, out: Tensor, activations: tuple[bool, ...]) -> Shape:
    """Shape of a product operator.

    Args:
        kind: member of ``kinds.PRODUCTS``.
        args: its arguments, in the operator's order.
        out: its output.
        activations: for every argument, whether it depends on the example.
    """
    if kind == "convolution":
        return _convolution(args, out)
    first = 1 if kind in WITH_ADDEND else 0
    bias = args[0] if first else None
    left, right = args[first], args[first + 1]
    if not activations[first]:
        return _left_weight(left, right, bias, out)
    if not activations[first + 1]:
        return _right_weight(left, right, bias, out)
    terms = left.shape[-1]
    outputs = out.numel()
    return Shape(left, right, bias, (), terms, channels=1, repeats=outputs, outputs=outputs)


def _left_weight(weight: Tensor, data: Tensor, bias: Tensor | None, out: Tensor) -> Shape:
    """``weight @ data``: every row of the weight is a channel."""
    terms = weight.shape[-1]
    channels = weight.numel() // max(terms, 1)
    keep = tuple(range(weight.dim() - 1))
    repeats = out.numel() // max(channels, 1)
    dim = max(out.dim() - 2, 0)
    return Shape(data, weight, bias, keep, terms, channels, repeats, out.numel(), channel_dim=dim)


def _right_weight(data: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Shape:
    """``data @ weight``: every column of the weight is a channel."""
    terms = data.shape[-1]
    channels = weight.numel() // max(terms, 1)
    summed = max(weight.dim() - 2, 0)
    keep = tuple(dim for dim in range(weight.dim()) if dim != summed)
    repeats = out.numel() // max(channels, 1)
    return Shape(data, weight, bias, keep, terms, channels, repeats, out.numel(), channel_dim=out.dim() - 1)


def _convolution(args: tuple, out: Tensor) -> Shape:
    data, weight, bias = args[:3]
    transposed = args[6]
    groups = args[8]
    spatial = out[0, 0].numel()
    outputs = out.numel()
    if transposed:
        # Every weight meets every input position of its channel; outputs collect what falls on them.
        repeats = data.numel() // data.shape[1]
        terms = weight.numel()
        return Shape(data, weight, bias, (), terms, 1, repeats, outputs, spatial, groups)
    channels = weight.shape[0]
    terms = weight.numel() // channels
    return Shape(data, weight, bias, (0,), terms, channels, outputs // channels, outputs, spatial, groups)
