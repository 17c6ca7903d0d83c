"""MTAS, the maximum transient activation size."""

from micronet_cli.trace.records import TracedNetwork


def peak_activation_bytes(network: TracedNetwork) -> float:
    """Largest sum of live activation bytes over the executed order.

    A buffer lives from the operation that makes it (the input: from the start) to the last one that reads it; an
    operation holds its inputs and its outputs at the same time; each tensor counts at its own bits. Views and in-place
    operations take no memory of their own. What the network returns lives to the end; an operation's output that
    nobody reads does not count.
    """
    sizes: dict[int, float] = {}
    for value, bits in zip(network.values, network.value_bits, strict=True):
        sizes[value.buffer] = max(sizes.get(value.buffer, 0.0), value.elements * bits / 8)
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for step, op in enumerate(network.ops):
        for index in op.inputs:
            buffer = network.values[index].buffer
            first.setdefault(buffer, 0)  # not made by any operation: the input
            last[buffer] = step
        for index in op.outputs:
            first.setdefault(network.values[index].buffer, step)
    for index in network.outputs if network.ops else ():
        buffer = network.values[index].buffer
        first.setdefault(buffer, 0)
        last[buffer] = len(network.ops) - 1
    change = [0.0] * (len(network.ops) + 1)
    for buffer, end in last.items():
        change[first[buffer]] += sizes[buffer]
        change[end + 1] -= sizes[buffer]
    peak = live = 0.0
    for step_change in change:
        live += step_change
        peak = max(peak, live)
    return peak
