"""What a rule set returns: a list of charges, each with the layer and the heading it belongs to."""

from typing import NamedTuple

# Headings of storage.
WEIGHTS, MASKS, BIASES, SCALES = "weights", "masks", "biases", "scales"
# Headings of the operations of convolutions and matrix products, and of the others.
MULTIPLY, ACCUMULATE, BIAS_ADD = "multiplies", "accumulation", "bias adds"
NON_LINEARITY, NORM, POOLING, ELEMENTWISE = "non-linearities", "norms", "pooling", "element-wise"


class Charge(NamedTuple):
    """A cost of one layer.

    Attributes:
        storage_bits: bits stored.
        multiplications, additions: raw counts.
        math_ops: the same, each weighted by bits / 32.
        bits: operand bits as shown in tables, as ``4x4``.
    """

    layer: str
    part: str
    storage_bits: float = 0.0
    multiplications: float = 0.0
    additions: float = 0.0
    math_ops: float = 0.0
    bits: str = ""
