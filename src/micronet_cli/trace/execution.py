"""How the modules of a network are executed: which of them, and who writes over what another one gave."""

from collections import defaultdict
from dataclasses import dataclass

from micronet_cli.trace.records import TracedNetwork

CallKey = tuple[str, int]  # a module's name, and which of its calls: 0 for the first


@dataclass(frozen=True)
class Execution:
    """What has to be known to run a part of a network again with remembered outputs.

    Attributes:
        modules: names of the modules that are called.
        overwritten: calls whose output is written to later, in place.
        writers: names of modules that write to memory they did not make, their inputs for one.
        output_bytes: memory that the outputs of all calls take, for one image.
    """

    modules: frozenset[str]
    overwritten: frozenset[CallKey]
    writers: frozenset[str]
    output_bytes: int

    @classmethod
    def of(cls, network: TracedNetwork) -> "Execution":
        """Read it from what was observed."""
        last_write, first_write = _writes(network)
        overwritten = set()
        writers = set()
        sizes: dict[int, int] = {}
        counts: defaultdict[str, int] = defaultdict(int)
        for call in network.calls:
            key = (call.module, counts[call.module])
            counts[call.module] += 1
            for read in call.outputs:
                value = network.values[read.value]
                sizes[value.buffer] = max(sizes.get(value.buffer, 0), value.elements * value.float_bits // 8)
                if last_write.get(value.buffer, -1) >= call.end:
                    overwritten.add(key)
            for op in network.ops[call.first : call.end]:
                buffers = [network.values[made].buffer for made in op.outputs]
                if any(first_write.get(buffer, -1) < call.first for buffer in buffers):
                    writers.add(call.module)
        return cls(frozenset(counts), frozenset(overwritten), frozenset(writers), sum(sizes.values()))


def _writes(network: TracedNetwork) -> tuple[dict[int, int], dict[int, int]]:
    """Buffer -> the last and the first operation that writes to it; the network's input has no first."""
    last: dict[int, int] = {}
    first: dict[int, int] = {}
    for index, op in enumerate(network.ops):
        for made in op.outputs:
            buffer = network.values[made].buffer
            last[buffer] = index
            first.setdefault(buffer, index)
    for value in network.values[:1]:
        first[value.buffer] = -1
    return last, first
