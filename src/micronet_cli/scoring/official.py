"""The challenge's rules (rules text, organisers' counter, rulings of the review)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from micronet_cli.functional.counting import (
    accumulator_width,
    adder_tree_bits,
    bitmask_bits,
    block_mask_bits,
    dense_bits,
    uniform_width,
)
from micronet_cli.scoring.charges import (
    ACCUMULATE,
    BIAS_ADD,
    BIASES,
    ELEMENTWISE,
    MASKS,
    MULTIPLY,
    NON_LINEARITY,
    NORM,
    POOLING,
    SCALES,
    WEIGHTS,
    Charge,
)
from micronet_cli.scoring.rules import Rules
from micronet_cli.trace.records import FLOAT_BITS, Dot, ExecutedQuantizer, Op, Stored, TracedNetwork

FREEBIE_BITS = 16


@dataclass(frozen=True)
class Official(Rules):
    """Everything stored counts at its bits, every operation at the maximum of its inputs' bits, over 32.

    See ``Rules`` for the options.
    """

    notes: ClassVar[Mapping[str, str]] = {
        WEIGHTS: "effective non-zeros at their bits",
        MASKS: "one bit an element where that is smaller than dense",
        BIASES: "32 bits, folded BatchNorms included",
        SCALES: "every scale and zero point",
        MULTIPLY: "max of the operands' bits, every non-zero and position",
        ACCUMULATE: "max(n - 1, 0) an output at the accumulator's width",
        BIAS_ADD: "one an output at 32 bits",
        NON_LINEARITY: "table of prices at 32 bits (ReLU: its input's)",
        POOLING: "n - 1 additions and 1 multiply at 32 bits",
        ELEMENTWISE: "one an output element at its inputs' bits",
        NORM: "table of prices",
    }

    def storage(self, network: TracedNetwork) -> list[Charge]:
        """Weights with a mask where that is smaller, biases, scales and zero points."""
        self._check_freebie(network)
        weights = set(network.weights)
        charges = []
        for index in network.used:
            stored = network.stored[index]
            bits = self._stored_bits(network.stored_bits[index])
            sparse = index in weights or stored.nonzeros < stored.elements
            charges += self._tensor(stored, bits) if sparse else [_bias(stored, bits)]
        charges += [Charge(q.layer, SCALES, q.stored_bits) for q in network.quantizers.values()]
        return charges

    def math(self, network: TracedNetwork) -> list[Charge]:
        """Products and priced operations, weighted by how many examples execute them."""
        self._check_freebie(network)
        charges: list[Charge] = []
        for index, op in enumerate(network.ops):
            here = self._priced(op, network) if op.dot is None else self._product(op, op.dot, network)
            charges += _times(self.weight_of(index, network), here) if self.paths else here
        return charges

    def _check_freebie(self, network: TracedNetwork) -> None:
        if not self.freebie:
            return
        reduced = [*network.quantizers, *(s.name for s in network.stored if s.float_bits < FLOAT_BITS)]
        if reduced:
            raise ValueError(f"freebie=true: only where nothing is quantised, and {reduced[0]} is")

    def _stored_bits(self, bits: float) -> float:
        return min(bits, FREEBIE_BITS) if self.freebie else bits

    _multiply_bits = _stored_bits

    def _tensor(self, stored: Stored, bits: float) -> list[Charge]:
        """The smallest of dense, bitmask and block mask."""
        dense = dense_bits(stored.elements, bits)
        forms = [(dense, dense), (bitmask_bits(stored.nonzeros, stored.elements, bits), stored.nonzeros * bits)]
        if stored.kept_blocks is not None:
            size, kept, blocks = stored.kept_blocks
            forms.append((block_mask_bits(kept, blocks, size, bits), kept * size * bits))
        total, values = min(forms)
        charges = [Charge(stored.layer, WEIGHTS, values)]
        return [*charges, Charge(stored.layer, MASKS, total - values)] if total > values else charges

    def _product(self, op: Op, dot: Dot, network: TracedNetwork) -> Iterator[Charge]:
        data = [network.value_bits[i] for i in op.inputs]
        weight = FLOAT_BITS if dot.weight is None else network.stored_bits[dot.weight]
        operands = [*data, weight] if dot.weight is not None or op.constant else data
        bits = self._multiply_bits(self._binary_bits(op, dot, network) or max(operands))
        shown = f"{weight}x{max(data)}" if dot.weight is not None else "x".join(map(str, data))
        count = dot.multiplications
        yield Charge(op.layer, MULTIPLY, 0, count, 0, count * bits / 32, shown)
        additions = dot.channel_additions
        widths = self._accumulation_bits(op, dot, network)
        yield Charge(op.layer, ACCUMULATE, 0, 0, float(additions.sum()), widths / 32)
        if dot.bias is not None:
            yield Charge(op.layer, BIAS_ADD, 0, 0, dot.outputs, dot.outputs)

    def _binary_bits(self, op: Op, dot: Dot, network: TracedNetwork) -> int | None:
        """1 where a value with a sign bit of its own meets weights of plus and minus one magnitude [T].

        A float has a sign bit; the codes of a quantiser, offset by their zero point, have none.
        """
        if dot.weight is None or not network.stored[dot.weight].binary:
            return None
        return 1 if network.values[op.inputs[0]].quantizers is None else None

    def _accumulation_bits(self, op: Op, dot: Dot, network: TracedNetwork) -> float:
        """Bits of all additions of the product, the bias left out."""
        additions = dot.channel_additions
        quantized = _quantized_operands(op, dot, network)
        if self.accumulator == "fp32" or quantized is None:
            return float(additions.sum()) * FLOAT_BITS
        weight_bits, data = quantized
        if self.accumulator == "integer":
            return float((additions * _widths(dot, weight_bits, data)).sum())
        first = weight_bits + data.bits
        trees, counts = np.unique(dot.nonzeros, return_counts=True)
        repeats = dot.outputs / len(dot.nonzeros)
        bits = sum(
            adder_tree_bits(n, first, FLOAT_BITS) * c for n, c in zip(trees.tolist(), counts.tolist(), strict=True)
        )
        return bits * repeats

    def _priced(self, op: Op, network: TracedNetwork) -> list[Charge]:
        price = self.price(op)
        multiplications, additions = price.count(op)
        if not multiplications and not additions:
            return []
        operands = [*(network.value_bits[i] for i in op.inputs), *(network.stored_bits[i] for i in op.parameters)]
        bits: float = max([FLOAT_BITS] if op.constant else operands)
        if price.as_float:
            bits = max(network.values[i].float_bits for i in op.inputs)
        if price.part == NON_LINEARITY and self.nonlinearity_bits is not None:
            bits = self.nonlinearity_bits
        math_ops = (multiplications * self._multiply_bits(bits) + additions * bits) / 32
        return [Charge(op.layer, price.part, 0, multiplications, additions, math_ops, f"{bits:g}")]


def _bias(stored: Stored, bits: float) -> Charge:
    return Charge(stored.layer, BIASES, dense_bits(stored.elements, bits))


def _quantized_operands(op: Op, dot: Dot, network: TracedNetwork) -> tuple[int, ExecutedQuantizer] | None:
    """Weight bits and the input's quantiser where both operands are integer codes of one quantiser each."""
    if dot.weight is None or len(op.inputs) != 1 or network.stored[dot.weight].quantizer is None:
        return None
    names = network.values[op.inputs[0]].quantizers
    if names is None or len(names) != 1:
        return None
    return network.stored_bits[dot.weight], network.quantizers[next(iter(names))]


def _widths(dot: Dot, weight_bits: int, data: ExecutedQuantizer) -> np.ndarray | int:
    """Width of each channel's accumulator, exact where the integer weights and inputs are known."""
    if dot.extremes is None or data.codes is None:
        return min(FLOAT_BITS, uniform_width(weight_bits, data.bits, float(dot.nonzeros.mean())))
    positive, negative = dot.extremes
    return np.minimum(accumulator_width(positive, negative, data.codes), FLOAT_BITS)


def _times(share: float, charges: Iterable[Charge]) -> Iterator[Charge]:
    """The mean over examples of charges that this share of them pays."""
    for charge in charges:
        counts = {name: getattr(charge, name) * share for name in ("multiplications", "additions", "math_ops")}
        yield charge._replace(**counts)
