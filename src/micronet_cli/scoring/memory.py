"""MTAS, the maximum transient activation size."""

from micronet_cli.trace.records import TracedNetwork


def peak_activation_bytes(network: TracedNetwork) -> float:
    """Largest sum of live activation bytes over the executed order.

    A buffer lives from the operation that makes it (the input: from the start) to the last one that reads it; an
    operation holds its inputs and its outputs at the same time; each tensor counts at its own bits. Views and in-place
    operations take no memory of their own. What the network returns lives to the end; an operation's output that
    nobody reads does not count.
    """
    if not network.ops:
        return 0.0
    sizes = _buffer_bytes(network)
    first, last = _lifetimes(network)
    changes = [0.0] * (len(network.ops) + 1)
    for buffer, end in last.items():
        begin = first[buffer]
        changes[begin] += sizes[buffer]
        changes[end + 1] -= sizes[buffer]
    peak = 0.0
    live = 0.0
    for change in changes:
        live += change
        peak = max(peak, live)
    return peak


def _buffer_bytes(network: TracedNetwork) -> dict[int, float]:
    """Bytes of the largest value that each buffer holds."""
    sizes: dict[int, float] = {}
    for value, bits in zip(network.values, network.value_bits, strict=True):
        size = value.elements * bits / 8
        known = sizes.get(value.buffer, 0.0)
        sizes[value.buffer] = max(known, size)
    return sizes


def _lifetimes(network: TracedNetwork) -> tuple[dict[int, int], dict[int, int]]:
    """Buffer -> the first operation at which it is alive, and buffer -> the last; unread ones have no last."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for step, op in enumerate(network.ops):
        for index in op.inputs:
            buffer = network.values[index].buffer
            # Not made by any operation: the input, alive from the start.
            first.setdefault(buffer, 0)
            last[buffer] = step
        for index in op.outputs:
            buffer = network.values[index].buffer
            first.setdefault(buffer, step)
    for index in network.outputs:
        buffer = network.values[index].buffer
        first.setdefault(buffer, 0)
        last[buffer] = len(network.ops) - 1
    return first, last
