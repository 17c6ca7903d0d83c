"""The arithmetic of RIAIR's ImageNet entry to the 2019 MicroNet Challenge, kept for comparison only.

Source: ``flops_utils_final.py`` of branch master in https://github.com/peiswang/MicroNetChallenge. Integers are
multiplied and added, all else runs in half floats, with a scale and a bias after every product.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from micronet_cli.scoring.accumulators import HALF_BITS, quantized_operands, tree_bits
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
from micronet_cli.scoring.official import Official
from micronet_cli.scoring.prices import Price
from micronet_cli.trace.kinds import MOVES
from micronet_cli.trace.records import FLOAT_BITS, Dot, Op, Stored, TracedNetwork

_SIGN_PASSES = {*MOVES, "quantize", "mean"}


@dataclass(frozen=True)
class Riair2019(Official):
    """Options as in ``Rules``, but two.

    ``nonlinearity_bits`` are those of swish, sigmoid and pooling. null: 16, as it was entered; 32: the organisers'
    ruling. ``accumulator`` stands for its ``--adder``.
    """

    accumulator: str = "adder_tree"

    notes: ClassVar[Mapping[str, str]] = {
        WEIGHTS: "non-zeros at their bits",
        MASKS: "one bit an element of every weight (count_conv_linear_*: w_element)",
        BIASES: "16 bits a channel (scale_param)",
        SCALES: "16 bits a channel and 16 an input (scale_param)",
        MULTIPLY: "as official",
        ACCUMULATE: "a signed input's products are one bit narrower (input_signed)",
        BIAS_ADD: "16 bits (scale_bias_ops)",
        NORM: "a BatchNorm after a concatenation folds; every output is scaled at 16 bits (scale_bias_ops)",
        NON_LINEARITY: "ReLU at 16 bits (count_relu), others at nonlinearity_bits (count_swish, count_sigmoid)",
        POOLING: "at nonlinearity_bits (count_avgpool2d)",
        ELEMENTWISE: "16 bits (count_eltwise)",
    }

    def storage(self, network: TracedNetwork) -> list[Charge]:
        """Weights with a mask each, and what scales and shifts every product."""
        charges: list[Charge] = []
        for op in network.ops:
            if op.dot is None or op.dot.weight is None:
                continue
            stored = network.stored[op.dot.weight]
            charges += self._tensor(stored, network.stored_bits[op.dot.weight])
            channels = len(op.dot.nonzeros)
            charges.append(Charge(op.layer, BIASES, channels * HALF_BITS))
            charges.append(Charge(op.layer, SCALES, (channels + 1) * HALF_BITS))
        return charges

    def _tensor(self, stored: Stored, bits: float) -> list[Charge]:
        values = Charge(stored.layer, WEIGHTS, stored.nonzeros * bits)
        mask = Charge(stored.layer, MASKS, stored.elements)
        return [values, mask]

    def _product(self, op: Op, dot: Dot, network: TracedNetwork) -> Iterator[Charge]:
        yield from super()._product(op, dot, network)
        bits = dot.outputs * HALF_BITS
        yield Charge(op.layer, NORM, multiplications=dot.outputs, math_ops=bits / 32)
        if dot.bias is None:
            yield self._bias_added(op, dot)

    def _bias_added(self, op: Op, dot: Dot) -> Charge:
        bits = dot.outputs * HALF_BITS
        return Charge(op.layer, BIAS_ADD, additions=dot.outputs, math_ops=bits / 32)

    def _accumulated(self, op: Op, dot: Dot, network: TracedNetwork) -> Charge:
        nonzeros = float(dot.nonzeros.sum()) * dot.repeats
        operands = quantized_operands(op, dot, network)
        if operands is None or self.accumulator in ("fp32", "fp16"):
            # density x outputs x (k - 1)
            additions = nonzeros - nonzeros / dot.terms
            half = operands is not None and self.accumulator == "fp16"
            bits = additions * (HALF_BITS if half else FLOAT_BITS)
            return Charge(op.layer, ACCUMULATE, additions=additions, math_ops=bits / 32)
        weight_bits, data = operands
        product_bits = weight_bits + data.bits
        if _is_signed(op.inputs[0], network):
            product_bits -= 1
        additions = nonzeros - dot.outputs
        if self.accumulator == "adder_tree":
            bits = tree_bits(dot, product_bits)
        else:
            largest = max(float(dot.nonzeros.max()), 1.0)
            width = product_bits + math.ceil(math.log2(largest))
            if self.accumulator == "int16":
                width = min(width, HALF_BITS)
            bits = additions * width
        return Charge(op.layer, ACCUMULATE, additions=additions, math_ops=bits / 32)

    def _priced(self, op: Op, network: TracedNetwork) -> list[Charge]:
        if self.price(op).part == NORM:
            return []
        return super()._priced(op, network)

    def _operand_bits(self, op: Op, price: Price, network: TracedNetwork) -> float:
        if op.kind != "relu" and price.part in (NON_LINEARITY, POOLING):
            return self.nonlinearity_bits or HALF_BITS
        return HALF_BITS


def _is_signed(value: int, network: TracedNetwork) -> bool:
    """Whether an activation may be negative: neither the image's bytes nor what a ReLU leaves."""
    for op in reversed(network.ops):
        if value not in op.outputs:
            continue
        if op.kind not in _SIGN_PASSES:
            return op.kind != "relu"
        value = op.inputs[0]
    return False
