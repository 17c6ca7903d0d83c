"""The arithmetic of the 2019 entry itself (Neural Magic and IST, EfficientNet-B1), kept for comparison only.

It differs from the rules where its counter did: depthwise convolutions divided by their groups twice, activation
functions and pools at the weights' bits, BatchNorm biases at their convolution's bits and sparsity, no scales.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from micronet_cli.functional.counting import bitmask_bits
from micronet_cli.scoring.charges import (
    ACCUMULATE,
    BIASES,
    ELEMENTWISE,
    MASKS,
    MULTIPLY,
    NON_LINEARITY,
    NORM,
    POOLING,
    WEIGHTS,
    Charge,
)
from micronet_cli.scoring.rules import Rules
from micronet_cli.trace.records import FLOAT_BITS, Dot, Op, Stored, TracedNetwork

UNQUANTIZED_BITS = 16
NON_LINEARITY_OPS = 3
_GATES = ("sigmoid", "hardsigmoid")
# Options that this arithmetic has no other value for.
_FIXED = {
    "freebie": False,
    "accumulator": "fp32",
    "block": None,
}


@dataclass(frozen=True)
class Seed2019(Rules):
    """Options as in ``Rules``, but ``freebie``, ``accumulator``, ``block`` and ``paths``: not in this arithmetic."""

    notes: ClassVar[Mapping[str, str]] = {
        WEIGHTS: "non-zeros at their bits, floats at 16",
        MASKS: "one bit an element of every tensor with zeros, of BatchNorm biases too",
        BIASES: "16 bits; a folded BatchNorm's at its weight's bits and sparsity",
        MULTIPLY: "at the weight's bits, divided by groups once more",
        ACCUMULATE: "n - 1 for a whole layer and position at 32 bits, divided by groups once more",
        NON_LINEARITY: "3 an element at the last weight's bits, after projections and dropout too",
        POOLING: "one an input element at the last weight's bits",
        NORM: "as official, at 32 bits",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, only in _FIXED.items():
            value = getattr(self, name)
            if value != only:
                raise ValueError(f"{name}={value}: seed2019 knows only {only}")
        if self.paths:
            raise ValueError(f"paths={dict(self.paths)}: seed2019 knows none")

    def storage(self, network: TracedNetwork) -> list[Charge]:
        """Weights with their mask; a folded BatchNorm's bias as if it were a part of its weight."""
        weights = set(network.weights)
        weight_of_bias = {}
        for op in network.ops:
            dot = op.dot
            if dot is not None and dot.weight is not None:
                weight_of_bias[dot.bias] = dot.weight
        charges: list[Charge] = []
        for index in network.used:
            stored = network.stored[index]
            weight = weight_of_bias.get(index)
            if index in weights:
                bits = self._bits(network, index)
                charges += _masked(stored, stored, bits, WEIGHTS)
            elif stored.folded and weight is not None:
                bits = self._bits(network, weight)
                charges += _masked(stored, network.stored[weight], bits, BIASES)
            else:
                bits = stored.elements * UNQUANTIZED_BITS
                charges.append(Charge(stored.layer, BIASES, bits))
        return charges

    def math(self, network: TracedNetwork) -> list[Charge]:
        """Products, 3 operations an element after each, and pools at the bits of the weight before."""
        readers = _readers(network)
        charges: list[Charge] = []
        bits: int = FLOAT_BITS  # of the last weight
        for op in network.ops:
            after: list[Op] = []
            for value in op.outputs:
                after += readers[value]
            if op.dot is None:
                charges += self._other(op, after, bits)
                continue
            bits_before = bits
            bits = _weight_bits(op.dot, network)
            is_convolution = op.kind == "convolution"
            if is_convolution:
                charges += _convolution(op, op.dot, bits)
            else:
                charges += _linear(op, op.dot, bits)
            if op.dot.weight is None:
                continue
            if not is_convolution:
                # The dropout before a classifier.
                read = network.values[op.inputs[0]]
                charge = self._non_linearity(op, read.elements, bits_before)
                charges.append(charge)
            elif not any(self._is_non_linear(reader) for reader in after):
                # A non-linearity is charged after projections too, where none is executed.
                charge = self._non_linearity(op, op.elements, bits)
                charges.append(charge)
        return charges

    def _bits(self, network: TracedNetwork, index: int) -> int:
        quantizer = network.stored[index].quantizer
        if quantizer not in network.quantizers:
            return UNQUANTIZED_BITS
        return network.stored_bits[index]

    def _is_non_linear(self, op: Op) -> bool:
        return op.dot is None and self.price(op).part == NON_LINEARITY

    def _non_linearity(self, op: Op, elements: int, bits: float) -> Charge:
        bits = self.nonlinearity_bits or bits
        count = NON_LINEARITY_OPS * elements
        return Charge(
            op.layer,
            NON_LINEARITY,
            multiplications=count,
            math_ops=count * bits / 32,
            bits=f"{bits:g}",
        )

    def _other(self, op: Op, after: list[Op], bits: int) -> Iterator[Charge]:
        price = self.price(op)
        if price.part == NON_LINEARITY:
            elements = _activated_elements(op, after)
            yield self._non_linearity(op, elements, bits)
        elif price.part == POOLING:
            yield Charge(
                op.layer,
                POOLING,
                additions=op.taken,
                math_ops=op.taken * bits / 32,
                bits=f"{bits:g}",
            )
        elif price.part != ELEMENTWISE:
            multiplications, additions = price.count(op)
            yield Charge(
                op.layer,
                price.part,
                multiplications=multiplications,
                additions=additions,
                math_ops=multiplications + additions,
                bits="32",
            )


def _readers(network: TracedNetwork) -> dict[int, list[Op]]:
    """Value -> the operations that read it."""
    readers: dict[int, list[Op]] = defaultdict(list)
    for op in network.ops:
        for value in op.inputs:
            readers[value].append(op)
    return readers


def _activated_elements(op: Op, after: list[Op]) -> int:
    """Elements on which a non-linearity is charged: of a gate those of the feature map that it scales."""
    if op.kind not in _GATES:
        return op.elements
    scaled = []
    for reader in after:
        if reader.kind == "mul":
            scaled.append(reader.elements)
    return max(scaled, default=op.elements)


def _masked(stored: Stored, like: Stored, bits: int, part: str) -> Iterator[Charge]:
    """Charges of a tensor with the bits and the sparsity of ``like``."""
    kept = stored.elements * like.nonzeros / like.elements
    yield Charge(stored.layer, part, kept * bits)
    if kept < stored.elements:
        mask_bits = bitmask_bits(0, stored.elements, bits)
        yield Charge(stored.layer, MASKS, mask_bits)


def _weight_bits(dot: Dot, network: TracedNetwork) -> int:
    if dot.weight is None:
        return FLOAT_BITS
    return network.stored_bits[dot.weight]


def _convolution(op: Op, dot: Dot, bits: int) -> Iterator[Charge]:
    nonzeros = float(dot.nonzeros.sum())
    multiplications = nonzeros * dot.spatial / dot.groups
    yield _multiplied(op, multiplications, bits)
    additions = (nonzeros - 1) * dot.spatial / dot.groups + dot.spatial
    yield _accumulated(op, additions)


def _linear(op: Op, dot: Dot, bits: int) -> Iterator[Charge]:
    multiplications = dot.multiplications
    yield _multiplied(op, multiplications, bits)
    additions = multiplications
    if dot.bias is not None:
        # Its bias is counted twice.
        additions += 2 * dot.outputs
    yield _accumulated(op, additions)


def _multiplied(op: Op, multiplications: float, bits: int) -> Charge:
    return Charge(
        op.layer,
        MULTIPLY,
        multiplications=multiplications,
        math_ops=multiplications * bits / 32,
        bits=f"{bits:g}",
    )


def _accumulated(op: Op, additions: float) -> Charge:
    """At 32 bits."""
    return Charge(op.layer, ACCUMULATE, additions=additions, math_ops=additions)
