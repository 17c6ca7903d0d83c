"""Where the channels of a value are, whatever views and moves it has been through."""

from collections import defaultdict
from dataclasses import dataclass

from micronet_cli.trace.layouts import Layout, Read
from micronet_cli.trace.records import Op, TracedNetwork

# These hand all elements on as they are, in a tensor of the same shape and other memory.
RELAYS = frozenset({"clone", "contiguous", "copy", "_to_copy", "_unsafe_view", "reshape"})


@dataclass(frozen=True)
class Channels:
    """A value, and the dimension of a tensor in its memory that numbers its channels.

    Attributes:
        value: its index.
        layout: of that tensor.
        dim: counted from the first dimension.
    """

    value: int
    layout: Layout
    dim: int

    @property
    def count(self) -> int:
        """Number of channels."""
        return self.layout.shape[self.dim]

    def dim_in(self, read: Read) -> int | None:
        """The dimension of a view that numbers the same channels; None where no single one does.

        Views that hold every element of one memory agree on a channel where the dimension has the same size and the
        same stride, however the others are split, merged or ordered.
        """
        seen = read.layout
        if seen == self.layout:
            return self.dim
        if seen.elements != self.layout.elements:
            return None
        if seen.offset != self.layout.offset:
            return None
        if self.count == 1:
            return None  # any dimension of size 1 may be it
        stride = self.layout.strides[self.dim]
        matches = []
        for dim, size in enumerate(seen.shape):
            if size == self.count and seen.strides[dim] == stride:
                matches.append(dim)
        if len(matches) != 1:
            return None
        return matches[0]


class Readers:
    """Which operations read each value of a traced network."""

    def __init__(self, network: TracedNetwork) -> None:
        self.network = network
        self._ops: defaultdict[int, list[int]] = defaultdict(list)
        self._returned = set(network.outputs)
        for index, op in enumerate(network.ops):
            for value in op.inputs:
                self._ops[value].append(index)

    def all(self, value: int) -> list[int] | None:
        """Indices of the operations that read the value; None where the network returns it too."""
        if value in self._returned:
            return None
        return self._ops[value]

    def sole(self, value: int) -> int | None:
        """Index of the one operation that reads the value, and reads nothing else; None where there is no such one."""
        found = self.all(value)
        if found is None or len(found) != 1:
            return None
        index = found[0]
        reader = self.network.ops[index]
        if len(reader.reads) != 1:
            return None
        return index


def through(network: TracedNetwork, op: Op, dim: int) -> Channels:
    """The channels behind an operation that works element by element, dimension ``dim`` of what it read."""
    made = op.outputs[0]
    value = network.values[made]
    return Channels(made, value.layout, dim)
