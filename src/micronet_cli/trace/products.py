"""From an operator's arguments to the shape of its dot products, and where its weight is to be read."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from micronet_cli.trace.records import Dot


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
        """The plain-data record, dense for now."""
        dense = np.full(self.channels, self.terms)
        shape = (self.terms, dense, self.repeats, self.outputs, self.spatial, self.groups)
        return Dot(weight, bias, *shape, channel_dim=self.channel_dim)


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
    first = 1 if kind in ("addmm", "baddbmm") else 0
    bias, left, right = args[0] if first else None, *args[first : first + 2]
    terms, outputs = left.shape[-1], out.numel()
    if not activations[first]:
        channels = left.numel() // max(terms, 1)
        keep = tuple(range(left.dim() - 1))
        dim = max(out.dim() - 2, 0)
        return Shape(right, left, bias, keep, terms, channels, outputs // max(channels, 1), outputs, channel_dim=dim)
    if not activations[first + 1]:
        channels = right.numel() // max(terms, 1)
        keep = tuple(d for d in range(right.dim()) if d != max(right.dim() - 2, 0))
        dim = out.dim() - 1
        return Shape(left, right, bias, keep, terms, channels, outputs // max(channels, 1), outputs, channel_dim=dim)
    return Shape(left, right, bias, (), terms, 1, outputs, outputs)


def _convolution(args: tuple, out: Tensor) -> Shape:
    data, weight, bias, *_, transposed, _, groups = args
    spatial = out[0, 0].numel()
    if transposed:
        # Every weight meets every input position of its channel; outputs collect what falls on them.
        repeats = data.numel() // data.shape[1]
        return Shape(data, weight, bias, (), weight.numel(), 1, repeats, out.numel(), spatial, groups)
    channels = weight.shape[0]
    terms = weight.numel() // channels
    return Shape(data, weight, bias, (0,), terms, channels, out.numel() // channels, out.numel(), spatial, groups)
