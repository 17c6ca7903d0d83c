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
    first = 0
    bias = None
    if kind in WITH_ADDEND:
        first = 1
        bias = args[0]
    left = args[first]
    right = args[first + 1]
    if not activations[first]:
        return _left_weight(left, right, bias, out)
    if not activations[first + 1]:
        return _right_weight(left, right, bias, out)
    return Shape(
        data=left,
        weight=right,
        bias=bias,
        keep=(),
        terms=left.shape[-1],
        channels=1,
        repeats=out.numel(),
        outputs=out.numel(),
    )


def _left_weight(weight: Tensor, data: Tensor, bias: Tensor | None, out: Tensor) -> Shape:
    """``weight @ data``: every row of the weight is a channel."""
    terms = weight.shape[-1]
    channels = weight.numel() // max(terms, 1)
    rows = range(weight.dim() - 1)
    return Shape(
        data=data,
        weight=weight,
        bias=bias,
        keep=tuple(rows),
        terms=terms,
        channels=channels,
        repeats=out.numel() // max(channels, 1),
        outputs=out.numel(),
        channel_dim=max(out.dim() - 2, 0),
    )


def _right_weight(data: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Shape:
    """``data @ weight``: every column of the weight is a channel."""
    terms = data.shape[-1]
    channels = weight.numel() // max(terms, 1)
    summed = max(weight.dim() - 2, 0)
    columns = [dim for dim in range(weight.dim()) if dim != summed]
    return Shape(
        data=data,
        weight=weight,
        bias=bias,
        keep=tuple(columns),
        terms=terms,
        channels=channels,
        repeats=out.numel() // max(channels, 1),
        outputs=out.numel(),
        channel_dim=out.dim() - 1,
    )


def _convolution(args: tuple, out: Tensor) -> Shape:
    data, weight, bias = args[:3]
    transposed = args[6]
    if transposed:
        # Every weight meets every input position of its channel; outputs collect what falls on them.
        keep: tuple[int, ...] = ()
        channels = 1
        repeats = data.numel() // data.shape[1]
    else:
        keep = (0,)
        channels = weight.shape[0]
        repeats = out.numel() // channels
    return Shape(
        data=data,
        weight=weight,
        bias=bias,
        keep=keep,
        terms=weight.numel() // channels,
        channels=channels,
        repeats=repeats,
        outputs=out.numel(),
        spatial=out[0, 0].numel(),
        groups=args[8],
    )
