"""The arithmetic of Alessandro Pappalardo's (Xilinx) entry to the 2019 MicroNet Challenge, kept for comparison only.

Source: ``competition/models/compute_micronet_cost.py`` in https://github.com/volcacius/micronet_competition, and the
width of an accumulator in Brevitas' ``QuantConv2d.max_output_bit_width``. All is integer: between two products each
value is compared with thresholds, one for each level of the activation, which hold scales, biases and BatchNorms.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from micronet_cli.scoring.charges import (
    ACCUMULATE,
    BIAS_ADD,
    BIASES,
    ELEMENTWISE,
    MULTIPLY,
    NON_LINEARITY,
    POOLING,
    SCALES,
    WEIGHTS,
    Charge,
)
from micronet_cli.scoring.official import Official
from micronet_cli.trace.records import Dot, Op, TracedNetwork


@dataclass(frozen=True)
class Xilinx2019(Official):
    """Options as in ``Rules``; the accumulator is always the entry's own."""

    notes: ClassVar[Mapping[str, str]] = {
        WEIGHTS: "every weight at its bits, zeros too (num_weights)",
        BIASES: "the classifier's at its accumulator's width, all others in thresholds",
        SCALES: "thresholds: 2^b - 1 a channel at the accumulator's width (update_act_cost)",
        MULTIPLY: "every weight, zeros too (num_muls)",
        ACCUMULATE: "n an output, zeros too, at the width of the largest product times n (max_output_bit_width)",
        BIAS_ADD: "only the classifier's",
        NON_LINEARITY: "2^b - 1 comparisons a value at the accumulator's width (update_act_cost)",
        POOLING: "n additions a mean at its accumulator's width (update_avg_pool_cost)",
        ELEMENTWISE: "as official",
    }

    def storage(self, network: TracedNetwork) -> list[Charge]:
        """Dense weights, thresholds, and the classifier's bias."""
        charges: list[Charge] = []
        for op in network.ops:
            if op.dot is not None and op.dot.weight is not None:
                charges += _stored_product(op, op.dot, op.dot.weight, network)
            elif op.kind == "add":
                charges.append(_stored_sum(op, network))
        return charges

    def math(self, network: TracedNetwork) -> list[Charge]:
        """Products, thresholds, sums and the pool."""
        charges: list[Charge] = []
        for op in network.ops:
            if op.dot is not None:
                charges += self._product(op, op.dot, network)
            elif op.kind == "add":
                charges += _sum(op, network)
            elif op.kind == "mean":
                charges.append(_mean(op, network))
        return charges

    def _product(self, op: Op, dot: Dot, network: TracedNetwork) -> Iterator[Charge]:
        assert dot.weight is not None
        weight_bits = network.stored_bits[dot.weight]
        input_bits = network.value_bits[op.inputs[0]]
        wider_bits = max(weight_bits, input_bits)
        products = dot.terms * dot.outputs
        yield Charge(
            op.layer,
            MULTIPLY,
            multiplications=products,
            math_ops=products * wider_bits / 32,
            bits=f"{weight_bits}x{input_bits}",
        )
        width = _accumulator_bits(op, dot, network)
        yield _added(op, ACCUMULATE, products, width)
        levels = _levels_after(op, network)
        if levels:
            yield _compared(op, dot.outputs, levels, width)
        else:
            yield _added(op, BIAS_ADD, dot.outputs, width)


def _stored_product(op: Op, dot: Dot, weight: int, network: TracedNetwork) -> Iterator[Charge]:
    """The weight, and the thresholds or the bias after it."""
    elements = network.stored[weight].elements
    yield Charge(op.layer, WEIGHTS, elements * network.stored_bits[weight])
    width = _accumulator_bits(op, dot, network)
    channels = len(dot.nonzeros)
    levels = _levels_after(op, network)
    if levels:
        yield Charge(op.layer, SCALES, channels * width * levels)
    else:
        yield Charge(op.layer, BIASES, channels * width)


def _stored_sum(op: Op, network: TracedNetwork) -> Charge:
    """The thresholds after a residual sum."""
    channels = _channels_in(op)
    levels, width = _requantized_sum(op, network)
    return Charge(op.layer, SCALES, channels * width * levels)


def _channels_in(op: Op) -> int:
    layout = op.reads[0].layout
    return layout.shape[1]


def _accumulator_bits(op: Op, dot: Dot, network: TracedNetwork) -> int:
    """Width of the largest product times its number: kernel x output channels a group, as Brevitas counts it."""
    assert dot.weight is not None
    input_bits = network.value_bits[op.inputs[0]]
    weight_bits = network.stored_bits[dot.weight]
    largest_input = 2**input_bits - 1
    # Narrow range: one level of the weight's code is left out.
    largest_weight = 2**weight_bits - 2
    terms = dot.terms
    if op.kind == "convolution":
        kernel = dot.terms * dot.groups // _channels_in(op)
        channels_out = len(dot.nonzeros)
        terms = kernel * channels_out // dot.groups
    return _width(largest_input * largest_weight * terms)


def _levels_after(op: Op, network: TracedNetwork) -> int:
    """Thresholds of the activation after a product: its levels but one; 0 where no quantiser follows."""
    values = set(op.outputs)
    for reader in network.ops:
        if values.isdisjoint(reader.inputs):
            continue
        if reader.kind == "quantize":
            bits = network.value_bits[reader.outputs[0]]
            return 2**bits - 1
        values.update(reader.outputs)
    return 0


def _sum(op: Op, network: TracedNetwork) -> Iterator[Charge]:
    """A residual sum, and the thresholds that make it as narrow as its operands again."""
    yield _added(op, ELEMENTWISE, op.elements, _widest_input(op, network))
    levels, width = _requantized_sum(op, network)
    yield _compared(op, op.elements, levels, width)


def _requantized_sum(op: Op, network: TracedNetwork) -> tuple[int, int]:
    """Thresholds that a sum of two values is compared with, and its width."""
    bits = _widest_input(op, network)
    levels = 2**bits - 1
    return levels, _width(2 * levels)


def _widest_input(op: Op, network: TracedNetwork) -> int:
    return max(network.value_bits[value] for value in op.inputs)


def _width(largest: int) -> int:
    """Bits of a number, as the entry counts them: log2, rounded up."""
    return math.ceil(math.log2(largest))


def _added(op: Op, part: str, additions: float, width: int, bits: str = "") -> Charge:
    """Additions at the width of their accumulator."""
    math_ops = additions * width / 32
    return Charge(op.layer, part, additions=additions, math_ops=math_ops, bits=bits)


def _compared(op: Op, elements: int, levels: int, width: int) -> Charge:
    """Every value against every threshold of its channel."""
    comparisons = elements * levels
    return _added(op, NON_LINEARITY, comparisons, width, bits=f"{width}")


def _mean(op: Op, network: TracedNetwork) -> Charge:
    """A sum of n values; the division is a truncation, which is free."""
    values = op.taken // op.rows
    bits = network.value_bits[op.inputs[0]]
    largest = 2**bits - 1
    width = _width(largest * values)
    return _added(op, POOLING, op.taken, width, bits=f"{width}")
