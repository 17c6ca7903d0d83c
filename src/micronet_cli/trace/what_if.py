"""Networks that were not traced: a traced one with other zeros, or without compression."""

from dataclasses import replace

import numpy as np

from micronet_cli.trace.records import FLOAT_BITS, Op, Stored, TracedNetwork, Value


def with_sparsity(network: TracedNetwork, sparsity: float) -> TracedNetwork:
    """Every product's weight with this fraction of zeros in each channel; counts may be fractional."""
    kept = 1 - sparsity
    stored = list(network.stored)
    for index in network.weights:
        row = stored[index]
        nonzeros = row.elements * kept
        stored[index] = replace(row, nonzeros=nonzeros, kept_blocks=None)
    ops = [_scaled(op, kept) for op in network.ops]
    return replace(network, stored=tuple(stored), ops=tuple(ops))


def without_compression(network: TracedNetwork) -> TracedNetwork:
    """The same network in float32, its weights without a zero; a permutation matrix keeps its own."""
    stored = [_uncompressed(row) for row in network.stored]
    for index in network.weights:
        row = stored[index]
        stored[index] = replace(row, nonzeros=row.elements)
    values = [_as_float(value) for value in network.values]
    ops = [_scaled(op, 1) for op in network.ops]
    return replace(
        network,
        stored=tuple(stored),
        values=tuple(values),
        ops=tuple(ops),
        quantizers={},
    )


def _uncompressed(row: Stored) -> Stored:
    return replace(
        row,
        quantizer=None,
        kept_blocks=None,
        binary=False,
        float_bits=FLOAT_BITS,
    )


def _as_float(value: Value) -> Value:
    if value.quantizers is None and value.float_bits == FLOAT_BITS:
        return value
    return replace(value, quantizers=None, float_bits=FLOAT_BITS)


def _scaled(op: Op, kept: float) -> Op:
    """The operation with this fraction of each channel's weights, where its weight is a stored one."""
    dot = op.dot
    if dot is None or dot.weight is None:
        return op
    channels = len(dot.nonzeros)
    nonzeros = np.full(channels, dot.terms * kept)
    scaled = replace(dot, nonzeros=nonzeros, extremes=None)
    return replace(op, dot=scaled)
