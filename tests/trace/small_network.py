"""Records of a small quantised network, written by hand."""

import numpy as np

from micronet_cli.trace.records import Dot, ExecutedQuantizer, Op, Stored, TracedNetwork, Value


def network(**changes):
    """A quantised input times a 4-bit weight with a bias, then a scale."""
    dot = Dot(weight=0, bias=1, terms=4, nonzeros=np.array([4, 0]), repeats=3, outputs=6)
    parts = {
        "ops": (
            Op("convolution", "conv", (0,), (1,), dot=dot),
            Op("mul", "", (1,), (2,), parameters=(2,)),
        ),
        "values": (
            Value(12, 0, quantizers=frozenset(["a", "b"])),
            Value(6, 1, float_bits=16),
            Value(6, 2, quantizers=frozenset(["gone"])),
        ),
        "stored": (
            Stored("conv.weight", "conv", 8, 4, quantizer="w", kept_blocks=(4, 1, 2), binary=True),
            Stored("conv.bias", "conv", 2, 2, float_bits=16),
            Stored("scale", "", 1, 1),
            Stored("unused", "", 9, 9),
        ),
        "quantizers": {
            "a": ExecutedQuantizer("a", "conv", 3, 64),
            "b": ExecutedQuantizer("b", "conv", 8, 64),
            "w": ExecutedQuantizer("w", "conv", 4, 32),
        },
        "input_shape": (3, 2, 2),
    }
    return TracedNetwork(**{**parts, **changes})
