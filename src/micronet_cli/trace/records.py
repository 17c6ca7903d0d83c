"""What a trace holds: plain data, no tensors, so that rules need no framework.

A network is a list of executed operations. Each one names the activations (``Value``) and the parameters (``Stored``)
it reads; those name the quantiser behind them. Bits are looked up when a rule asks, so a changed quantiser or a changed
count of zeros only needs new numbers here, not a new trace.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from micronet_cli.trace.layouts import UNKNOWN_LAYOUT, Layout, Read

FLOAT_BITS = 32


@dataclass(frozen=True, slots=True)
class ExecutedQuantizer:
    """A fake-quantiser that was executed.

    Attributes:
        layer: the layer it belongs to.
        bits: whole bits that hold a code.
        stored_bits: bits of its scales and zero points.
        codes: smallest and largest integer that it stands for (code minus zero's code), None where unknown.
    """

    name: str
    layer: str
    bits: int
    stored_bits: int
    codes: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor that inference needs: a parameter, or the result of arithmetic on parameters alone.

    Attributes:
        elements: elements of the effective tensor.
        nonzeros: those that are not zero (fractional in a what-if); looked at only in weights of products.
        float_bits: bits of an element without quantiser.
        quantizer: name of its quantiser, or None.
        kept_blocks: (elements a block, blocks that hold a non-zero, all blocks), where blocks were asked for.
        binary: every element is plus or minus one value per channel.
        folded: a bias that a folded BatchNorm left.
        derived: arithmetic on parameters makes it (a standardised weight), other than a mask and a quantiser.
    """

    name: str
    layer: str
    elements: int
    nonzeros: float
    float_bits: int = FLOAT_BITS
    quantizer: str | None = None
    kept_blocks: tuple[int, int, int] | None = None
    binary: bool = False
    folded: bool = False
    derived: bool = False


@dataclass(frozen=True, slots=True)
class Value:
    """An activation.

    Attributes:
        buffer: the memory it lives in; an in-place operation makes a new value in the old buffer.
        quantizers: names of the quantisers whose codes it holds, None for floats.
        layout: of the tensor that was made.
    """

    elements: int
    buffer: int
    float_bits: int = FLOAT_BITS
    quantizers: frozenset[str] | None = None
    layout: Layout = UNKNOWN_LAYOUT


@dataclass(frozen=True, slots=True, eq=False)
class Dot:
    """A convolution or matrix product: ``channels`` sets of weights, each used ``repeats`` times.

    Attributes:
        weight: index of the stored weight, None for a product of two activations.
        bias: index of the stored bias, or None.
        terms: weights of one channel, zeros included.
        nonzeros: non-zero weights of each channel, [channels].
        repeats: how often each weight is multiplied.
        outputs: output elements.
        spatial: output positions (height x width) of a convolution, else 1.
        groups: of a convolution, else 1.
        extremes: sums of the positive and of the negative integer weights, [2, channels], where codes are known.
        channel_dim: dimension of the output that numbers the channels.
    """

    weight: int | None
    bias: int | None
    terms: int
    nonzeros: np.ndarray
    repeats: int
    outputs: int
    spatial: int = 1
    groups: int = 1
    extremes: np.ndarray | None = None
    channel_dim: int = 1

    @property
    def multiplications(self) -> float:
        """One for every non-zero weight and repetition."""
        return float(self.nonzeros.sum()) * self.repeats

    @property
    def channel_additions(self) -> np.ndarray:
        """Additions of each channel's dot products, [channels]: max(n - 1, 0) an output, without the bias."""
        outputs = self.outputs / len(self.nonzeros)
        return np.maximum(self.nonzeros * float(self.repeats) - outputs, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """One executed operation.

    Attributes:
        kind: the operator's name without namespace, overload and in-place mark, as ``add``.
        layer: qualified name of the innermost module that executed it.
        inputs, outputs: indices of values.
        parameters: indices of stored tensors it reads, a product's weight and bias left out.
        constant: another operand is a constant of the program (a Python number, a table), a float.
        elements: elements of its (first) output.
        taken: elements it reads to make them; of a pooling, window size x outputs.
        rows: independent reductions of a pooling, a norm or a softmax.
        dot: set for convolutions and matrix products.
        reads: its input values, each in the layouts in which it was read.
        arguments, options: its other arguments, by position and by name; None in the place of a tensor.
    """

    kind: str
    layer: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    parameters: tuple[int, ...] = ()
    constant: bool = False
    elements: int = 0
    taken: int = 0
    rows: int = 0
    dot: Dot | None = None
    reads: tuple[Read, ...] = ()
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """A module that was executed, once; calls are in the order of their ends.

    Attributes:
        module: its qualified name.
        first, end: the operations that it executed are ``ops[first:end]``.
        inputs, outputs: the values that went in and that came out, before quantisers that hang on the module.
    """

    module: str
    first: int
    end: int
    inputs: tuple[Read, ...]
    outputs: tuple[Read, ...]


@dataclass(frozen=True, eq=False)
class TracedNetwork:
    """An executed network: operations in order, and what they read.

    Attributes:
        input_shape: (channels, height, width) of the example.
        free_multiplications: those of products of parameters alone, which are done before inference.
        ends: module name -> number of operations executed when it last returned.
        outputs: indices of the values that the network returns.
        calls: every execution of a module.
    """

    ops: tuple[Op, ...]
    values: tuple[Value, ...]
    stored: tuple[Stored, ...]
    quantizers: dict[str, ExecutedQuantizer]
    input_shape: tuple[int, ...]
    free_multiplications: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    outputs: tuple[int, ...] = ()
    calls: tuple[Call, ...] = ()

    @cached_property
    def value_bits(self) -> tuple[int, ...]:
        """Bits of an element of each value."""
        return tuple(self._bits(value.float_bits, value.quantizers) for value in self.values)

    @cached_property
    def stored_bits(self) -> tuple[int, ...]:
        """Bits of an element of each stored tensor."""
        bits = []
        for stored in self.stored:
            quantizers = [stored.quantizer] if stored.quantizer else None
            bits.append(self._bits(stored.float_bits, quantizers))
        return tuple(bits)

    def _bits(self, float_bits: int, quantizers: Iterable[str] | None) -> int:
        """The most bits of these quantisers; ``float_bits`` for none, or for one that was not executed."""
        if quantizers is None:
            return float_bits
        bits = []
        for name in quantizers:
            quantizer = self.quantizers.get(name)
            bits.append(float_bits if quantizer is None else quantizer.bits)
        return max(bits, default=float_bits)

    @cached_property
    def weights(self) -> tuple[int, ...]:
        """Indices of the stored tensors that are the weight of a convolution or matrix product."""
        found: dict[int, None] = {}
        for op in self.ops:
            if op.dot is not None and op.dot.weight is not None:
                found[op.dot.weight] = None
        return tuple(found)

    @cached_property
    def used(self) -> tuple[int, ...]:
        """Indices of the stored tensors that an operation reads."""
        found: dict[int, None] = {}
        for op in self.ops:
            if op.dot is not None:
                for index in (op.dot.weight, op.dot.bias):
                    if index is not None:
                        found[index] = None
            found |= dict.fromkeys(op.parameters)
        return tuple(found)
