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
        operands = (network.stored_bits[dot.weight], network.value_bits[op.inputs[0]])
        products = dot.terms * dot.outputs
        yield Charge(
            op.layer,
            MULTIPLY,
            multiplications=products,
            math_ops=products * max(operands) / 32,
            bits="x".join(map(str, operands)),
        )
        width = _accumulator_bits(op, dot, network)
        yield Charge(op.layer, ACCUMULATE, additions=products, math_ops=products * width / 32)
        levels = _levels_after(op, network)
        if levels:
            yield _compared(op, dot.outputs, levels, width)
        else:
            yield Charge(op.layer, BIAS_ADD, additions=dot.outputs, math_ops=dot.outputs * width / 32)


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
    channels = op.reads[0].layout.shape[1]
    levels, width = _requantized_sum(op, network)
    return Charge(op.layer, SCALES, channels * width * levels)


def _accumulator_bits(op: Op, dot: Dot, network: TracedNetwork) -> int:
    """Width of the largest product times its number: kernel x output channels a group, as Brevitas counts it."""
    assert dot.weight is not None
    largest_input = 2 ** network.value_bits[op.inputs[0]] - 1
    # Narrow range: one level of the weight's code is left out.
    largest_weight = 2 ** network.stored_bits[dot.weight] - 2
    terms = dot.terms
    if op.kind == "convolution":
        channels_in = op.reads[0].layout.shape[1]
        kernel = dot.terms * dot.groups // channels_in
        terms = kernel * len(dot.nonzeros) // dot.groups
    return math.ceil(math.log2(largest_input * largest_weight * terms))


def _levels_after(op: Op, network: TracedNetwork) -> int:
    """Thresholds of the activation after a product: its levels but one; 0 where no quantiser follows."""
    values = set(op.outputs)
    for reader in network.ops:
        if values.isdisjoint(reader.inputs):
            continue
        if reader.kind == "quantize":
            return 2 ** network.value_bits[reader.outputs[0]] - 1
        values |= set(reader.outputs)
    return 0


def _sum(op: Op, network: TracedNetwork) -> Iterator[Charge]:
    """A residual sum, and the thresholds that make it as narrow as its operands again."""
    bits = max(network.value_bits[value] for value in op.inputs)
    yield Charge(op.layer, ELEMENTWISE, additions=op.elements, math_ops=op.elements * bits / 32)
    levels, width = _requantized_sum(op, network)
    yield _compared(op, op.elements, levels, width)


def _requantized_sum(op: Op, network: TracedNetwork) -> tuple[int, int]:
    """Thresholds that a sum of two values is compared with, and its width."""
    levels = 2 ** max(network.value_bits[value] for value in op.inputs) - 1
    return levels, math.ceil(math.log2(2 * levels))


def _compared(op: Op, elements: int, levels: int, width: int) -> Charge:
    """Every value against every threshold of its channel."""
    comparisons = elements * levels
    return Charge(op.layer, NON_LINEARITY, additions=comparisons, math_ops=comparisons * width / 32, bits=f"{width}")


def _mean(op: Op, network: TracedNetwork) -> Charge:
    """A sum of n values; the division is a truncation, which is free."""
    values = op.taken // op.rows
    bits = network.value_bits[op.inputs[0]]
    width = math.ceil(math.log2((2**bits - 1) * values))
    return Charge(op.layer, POOLING, additions=op.taken, math_ops=op.taken * width / 32, bits=f"{width}")
