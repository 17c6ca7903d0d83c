"""Bits that tensors take in storage and sums take in accumulators.

Sources: the rules of the 2019 MicroNet Challenge (sparse storage, reduced accumulation); two's complement arithmetic.
"""

import math

import numpy as np


def dense_bits(elements: float, bits: float) -> float:
    """Bits of a tensor with every element stored."""
    return elements * bits


def bitmask_bits(nonzeros: float, elements: float, bits: float) -> float:
    """Bits of the non-zero values and a mask of one bit an element.

    A 2 x 2 tensor with one zero at 8 bits:

    >>> bitmask_bits(3, 4, 8)
    28
    """
    return nonzeros * bits + elements


def block_mask_bits(kept: int, blocks: int, block_elements: int, bits: float) -> float:
    """Bits of the kept blocks, whole, and a mask of one bit a block.

    512 x 128 in 4 x 4 blocks has a mask of 4096 bits:

    >>> block_mask_bits(0, 512 * 128 // 16, 16, 32)
    4096
    """
    kept_elements = kept * block_elements
    return kept_elements * bits + blocks


def uniform_width(weight_bits: float, input_bits: float, terms: float) -> int:
    """Width that holds a sum of ``terms`` products whatever their codes: w + a + ceil(log2 n).

    >>> uniform_width(4, 4, 1), uniform_width(4, 4, 9)
    (8, 12)
    """
    product_bits = math.ceil(weight_bits + input_bits)
    leaves = max(terms, 1)
    carry_bits = math.ceil(math.log2(leaves))
    return product_bits + carry_bits


def signed_width(low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """Smallest two's complement width that holds every integer from ``low`` <= 0 to ``high`` >= 0.

    >>> signed_width(np.array([0, -1, -128, -129]), np.array([0, 0, 127, 127])).tolist()
    [1, 1, 8, 9]
    """
    # The magnitude that has to stay below 2^(w - 1); frexp is exact where log2 rounds.
    above = np.asarray(high, float)
    negated = -np.asarray(low, float)
    below = negated - 1
    magnitude = np.maximum(above, below)
    _, exponent = np.frexp(magnitude)
    return exponent + 1


def accumulator_width(
    positive: np.ndarray,
    negative: np.ndarray,
    codes: tuple[int, int],
) -> np.ndarray:
    """Exact width in which a dot product cannot overflow, whatever the inputs and the order of its terms.

    Args:
        positive: sum of the positive integer weights of each channel, [channels].
        negative: sum of the negative ones, [channels], <= 0.
        codes: smallest and largest integer input; 0 is always included.

    Every term's range holds 0, so every partial sum lies in the range of the whole sum.

    Weights 3 and -2, inputs 0 .. 15: sums lie in -30 .. 45, which 7 bits hold.

    >>> accumulator_width(np.array([3]), np.array([-2]), (0, 15)).tolist()
    [7]
    """
    smallest, largest = codes
    low = min(smallest, 0)
    high = max(largest, 0)
    smallest_sum = positive * low + negative * high
    largest_sum = positive * high + negative * low
    return signed_width(smallest_sum, largest_sum)


def adder_tree_bits(terms: float, first_bits: int, widest: int = 32) -> float:
    """Sum over all additions of their width in a balanced tree of ``terms`` leaves.

    The first level adds ``first_bits``-bit products, each level is one bit wider; a level of m values makes m // 2
    additions and hands an odd one on. A fractional number of leaves is interpolated.

    Five leaves of 8 bits: 2 additions at 8, 1 at 9, 1 at 10.

    >>> adder_tree_bits(5, 8), adder_tree_bits(1, 8), adder_tree_bits(2.5, 8)
    (35, 0, 12.5)
    """
    if terms != int(terms):
        low = math.floor(terms)
        below = adder_tree_bits(low, first_bits, widest)
        above = adder_tree_bits(low + 1, first_bits, widest)
        fraction = terms - low
        return below + fraction * (above - below)
    left = int(terms)
    bits = first_bits
    total = 0
    while left > 1:
        additions = left // 2
        total += additions * min(bits, widest)
        left -= additions
        bits += 1
    return total
