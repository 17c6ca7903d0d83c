"""The arithmetic of the 2019 entry itself (Neural Magic and IST, EfficientNet-B1), kept for comparison only.

It differs from the rules where its counter did: depthwise convolutions divided by their groups twice, activation
functions and pools at the weights' bits, BatchNorm biases at their convolution's bits and sparsity, no scales.
"""

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
        for name, only in (("freebie", False), ("accumulator", "fp32"), ("block", None)):
            if getattr(self, name) != only:
                raise ValueError(f"{name}={getattr(self, name)}: seed2019 knows only {only}")
        if self.paths:
            raise ValueError(f"paths={dict(self.paths)}: seed2019 knows none")

    def storage(self, network: TracedNetwork) -> list[Charge]:
        """Weights with their mask; a folded BatchNorm's bias as if it were a part of its weight."""
        weights = set(network.weights)
        companions = {op.dot.bias: op.dot.weight for op in network.ops if op.dot and op.dot.weight is not None}
        charges: list[Charge] = []
        for index in network.used:
            stored = network.stored[index]
            if index in weights:
                charges += _masked(stored, stored, self._bits(network, index), WEIGHTS)
            elif stored.folded and (weight := companions.get(index)) is not None:
                charges += _masked(stored, network.stored[weight], self._bits(network, weight), BIASES)
            else:
                charges.append(Charge(stored.layer, BIASES, stored.elements * UNQUANTIZED_BITS))
        return charges

    def math(self, network: TracedNetwork) -> list[Charge]:
        """Products, 3 operations an element after each, and pools at the bits of the weight before."""
        readers: dict[int, list[Op]] = {}
        for op in network.ops:
            for value in op.inputs:
                readers.setdefault(value, []).append(op)
        charges: list[Charge] = []
        bits: int = FLOAT_BITS
        for op in network.ops:
            after = [reader for value in op.outputs for reader in readers.get(value, [])]
            if op.dot is None:
                charges += self._other(op, after, bits)
                continue
            before, bits = bits, _weight_bits(op.dot, network)
            charges += _convolution(op, op.dot, bits) if op.kind == "convolution" else _linear(op, op.dot, bits)
            if op.kind != "convolution" and op.dot.weight is not None:
                charges.append(self._non_linearity(op, network.values[op.inputs[0]].elements, before))  # dropout
            elif op.dot.weight is not None and not any(self._is_non_linear(reader) for reader in after):
                charges.append(self._non_linearity(op, op.elements, bits))  # charged after projections too
        return charges

    def _bits(self, network: TracedNetwork, index: int) -> int:
        stored = network.stored[index]
        return UNQUANTIZED_BITS if stored.quantizer not in network.quantizers else network.stored_bits[index]

    def _is_non_linear(self, op: Op) -> bool:
        return op.dot is None and self.price(op).part == NON_LINEARITY

    def _non_linearity(self, op: Op, elements: int, bits: float) -> Charge:
        bits = self.nonlinearity_bits or bits
        count = NON_LINEARITY_OPS * elements
        return Charge(op.layer, NON_LINEARITY, 0, count, 0, count * bits / 32, f"{bits:g}")

    def _other(self, op: Op, after: list[Op], bits: int) -> Iterator[Charge]:
        price = self.price(op)
        if price.part == NON_LINEARITY:
            # A gate is charged on the feature map that it scales.
            scaled = [reader.elements for reader in after if op.kind in _GATES and reader.kind == "mul"]
            yield self._non_linearity(op, max(scaled, default=op.elements), bits)
        elif price.part == POOLING:
            yield Charge(op.layer, POOLING, 0, 0, op.taken, op.taken * bits / 32, f"{bits:g}")
        elif price.part != ELEMENTWISE:
            multiplications, additions = price.count(op)
            yield Charge(op.layer, price.part, 0, multiplications, additions, multiplications + additions, "32")


def _masked(stored: Stored, like: Stored, bits: int, part: str) -> Iterator[Charge]:
    """Charges of a tensor with the bits and the sparsity of ``like``."""
    kept = stored.elements * like.nonzeros / like.elements
    yield Charge(stored.layer, part, kept * bits)
    if kept < stored.elements:
        yield Charge(stored.layer, MASKS, bitmask_bits(0, stored.elements, bits))


def _weight_bits(dot: Dot, network: TracedNetwork) -> int:
    return FLOAT_BITS if dot.weight is None else network.stored_bits[dot.weight]


def _convolution(op: Op, dot: Dot, bits: int) -> Iterator[Charge]:
    nonzeros = float(dot.nonzeros.sum())
    multiplications = nonzeros * dot.spatial / dot.groups
    additions = (nonzeros - 1) * dot.spatial / dot.groups + dot.spatial
    yield Charge(op.layer, MULTIPLY, 0, multiplications, 0, multiplications * bits / 32, f"{bits:g}")
    yield Charge(op.layer, ACCUMULATE, 0, 0, additions, additions)


def _linear(op: Op, dot: Dot, bits: int) -> Iterator[Charge]:
    count = dot.multiplications
    yield Charge(op.layer, MULTIPLY, 0, count, 0, count * bits / 32, f"{bits:g}")
    additions = count + (2 * dot.outputs if dot.bias is not None else 0)  # its bias is counted twice
    yield Charge(op.layer, ACCUMULATE, 0, 0, additions, additions)
