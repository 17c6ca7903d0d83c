"""How the modules of a network are executed: which of them, and who writes over what another one gave."""

from collections import defaultdict
from dataclasses import dataclass

from micronet_cli.trace.records import Call, TracedNetwork, Value

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
        writes = _Writes(network)
        overwritten = set()
        writers = set()
        sizes: dict[int, int] = {}  # of buffers
        counts: defaultdict[str, int] = defaultdict(int)
        for call in network.calls:
            module = call.module
            key = (module, counts[module])
            counts[module] += 1
            for read in call.outputs:
                value = network.values[read.value]
                size = value.elements * value.float_bits // 8
                known = sizes.get(value.buffer, 0)
                sizes[value.buffer] = max(known, size)
                if writes.last_of(value) >= call.end:
                    overwritten.add(key)
            if _writes_to_others(call, network, writes):
                writers.add(module)
        return cls(
            modules=frozenset(counts),
            overwritten=frozenset(overwritten),
            writers=frozenset(writers),
            output_bytes=sum(sizes.values()),
        )


class _Writes:
    """The first and the last operation that writes to each buffer; -1 where none does, or before the first."""

    def __init__(self, network: TracedNetwork) -> None:
        self._first: dict[int, int] = {}
        self._last: dict[int, int] = {}
        for index, op in enumerate(network.ops):
            for made in op.outputs:
                buffer = network.values[made].buffer
                self._last[buffer] = index
                self._first.setdefault(buffer, index)
        if network.values:
            network_input = network.values[0]
            self._first[network_input.buffer] = -1

    def first_of(self, value: Value) -> int:
        """Index of the first operation that writes to the value's buffer."""
        return self._first.get(value.buffer, -1)

    def last_of(self, value: Value) -> int:
        """Index of the last operation that writes to the value's buffer."""
        return self._last.get(value.buffer, -1)


def _writes_to_others(call: Call, network: TracedNetwork, writes: _Writes) -> bool:
    """Whether a call writes to memory that was there before it began."""
    for op in network.ops[call.first : call.end]:
        for made in op.outputs:
            value = network.values[made]
            if writes.first_of(value) < call.first:
                return True
    return False
