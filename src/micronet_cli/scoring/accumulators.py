"""Bits of a product's additions in every kind of accumulator."""

import numpy as np

from micronet_cli.functional.counting import accumulator_width, adder_tree_bits, uniform_width
from micronet_cli.trace.records import FLOAT_BITS, Dot, ExecutedQuantizer, Op, TracedNetwork

# Floats that add up quantised products, integers at the width that they need, and integers up to 16 bits (a wider sum
# is a float of 16).
ACCUMULATORS = ("fp32", "integer", "adder_tree", "int16", "fp16")
NEED_CODES = ("integer", "int16")
HALF_BITS = 16


def accumulation_bits(accumulator: str, op: Op, dot: Dot, network: TracedNetwork) -> float:
    """Sum of the widths of all additions of a product, those of biases left out.

    Args:
        accumulator: one of ``ACCUMULATORS``; products of floats are added at 32 bits whatever it is.
        op: the operation.
        dot: its product.
        network: that executes it.
    """
    additions = dot.channel_additions
    quantized = quantized_operands(op, dot, network)
    count = float(additions.sum())
    if accumulator == "fp32" or quantized is None:
        return count * FLOAT_BITS
    if accumulator == "fp16":
        return count * HALF_BITS
    weight_bits, data = quantized
    if accumulator == "adder_tree":
        product_bits = weight_bits + data.bits
        return tree_bits(dot, product_bits)
    widths = _widths(dot, weight_bits, data)
    if accumulator == "int16":
        widths = np.minimum(widths, HALF_BITS)
    bits = additions * widths
    return float(bits.sum())


def tree_bits(dot: Dot, product_bits: int) -> float:
    """Sum of the widths of all additions in balanced trees whose leaves have ``product_bits``."""
    # Channels with equally many weights have equal trees.
    sizes, channels = np.unique(dot.nonzeros, return_counts=True)
    total = 0.0
    for size, count in zip(sizes.tolist(), channels.tolist(), strict=True):
        one = adder_tree_bits(size, product_bits, FLOAT_BITS)
        total += one * count
    channels_out = len(dot.nonzeros)
    outputs_a_channel = dot.outputs / channels_out
    return total * outputs_a_channel


def quantized_operands(op: Op, dot: Dot, network: TracedNetwork) -> tuple[int, ExecutedQuantizer] | None:
    """Bits of the weight, or of the left activation, and the input's quantiser.

    None unless both operands are integer codes of one quantiser each.
    """
    *left, data = op.inputs
    quantizers = [_only_quantizer(value, network) for value in op.inputs]
    bits = [network.value_bits[value] for value in left]
    if dot.weight is not None:
        quantizers.append(network.stored[dot.weight].quantizer)
        bits.append(network.stored_bits[dot.weight])
    name = _only_quantizer(data, network)
    if name is None or None in quantizers or len(bits) != 1:
        return None
    return bits[0], network.quantizers[name]


def _only_quantizer(value: int, network: TracedNetwork) -> str | None:
    """The quantiser whose codes an activation holds; None for floats and for codes of several."""
    names = network.values[value].quantizers
    if names is None or len(names) != 1:
        return None
    (name,) = names
    return name


def _widths(dot: Dot, weight_bits: int, data: ExecutedQuantizer) -> np.ndarray | int:
    """Width of each channel's accumulator, exact where the integer weights and inputs are known."""
    if dot.extremes is None or data.codes is None:
        mean_terms = float(dot.nonzeros.mean())
        width = uniform_width(weight_bits, data.bits, mean_terms)
        return min(FLOAT_BITS, width)
    positive, negative = dot.extremes
    widths = accumulator_width(positive, negative, data.codes)
    return np.minimum(widths, FLOAT_BITS)
