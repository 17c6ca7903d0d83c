"""BatchNorm becomes the bias of the product before it, where it can: its scale is free (organisers' counter)."""

from collections import Counter
from dataclasses import replace

from micronet_cli.trace.kinds import BATCH_NORMS
from micronet_cli.trace.records import Op, Stored, TracedNetwork

_RELAYS = frozenset({"clone", "_unsafe_view", "reshape", "contiguous", "copy"})


def fold_batch_norms(network: TracedNetwork) -> TracedNetwork:
    """The network without foldable BatchNorms; the others cost a scale and a bias per channel.

    A BatchNorm folds where its input comes from a convolution or a product with a weight, maybe moved about in between,
    and nothing else reads that result.
    """
    ops: list[Op | None] = list(network.ops)
    stored = list(network.stored)
    producer = {value: i for i, op in enumerate(ops) if op is not None for value in op.outputs}
    readers = Counter([*network.outputs, *(value for op in network.ops for value in op.inputs)])
    indices: dict[tuple[str, int | None], int] = {}

    def index_of(row: Stored, weight: int | None = None) -> int:
        """Of what is stored under a name, for a weight: once, however often it is executed."""
        if (row.name, weight) not in indices:
            indices[row.name, weight] = len(stored)
            stored.append(row)
        return indices[row.name, weight]

    for i, op in enumerate(network.ops):
        if op.kind not in BATCH_NORMS:
            continue
        channels = _channels(op, stored)
        source = _foldable(op, channels, ops, producer, readers)
        if source is None:
            names = (f"{op.layer}.scale", f"{op.layer}.bias")
            parameters = tuple(index_of(Stored(name, op.layer, channels, channels)) for name in names)
            ops[i] = replace(op, kind="batch_norm", parameters=parameters, outputs=op.outputs[:1])
            continue
        before = ops[source]
        assert before is not None
        assert before.dot is not None
        name = f"{before.layer}.bias (folded {op.layer})"
        bias = index_of(Stored(name, before.layer, channels, channels, folded=True), before.dot.weight)
        ops[source] = replace(before, dot=replace(before.dot, bias=bias))
        last = producer[op.inputs[0]]
        ops[i] = None
        # What made the BatchNorm's input now makes its output.
        relay = ops[last]
        assert relay is not None
        ops[last] = replace(relay, outputs=op.outputs[:1])
        producer[op.outputs[0]] = last
    return _without_gaps(network, ops, stored)


def _channels(op: Op, stored: list[Stored]) -> int:
    """Channels of a BatchNorm: the length of any of its vectors (the running mean is always there in evaluation)."""
    return max(stored[p].elements for p in op.parameters)


def _foldable(op: Op, channels: int, ops: list[Op | None], producer: dict[int, int], readers: Counter) -> int | None:
    """Index of the product that takes the BatchNorm's bias, or None."""
    value = op.inputs[0]
    while readers[value] == 1 and value in producer:
        index = producer[value]
        before = ops[index]
        if before is None:
            return None
        if before.kind in _RELAYS:
            value = before.inputs[0]
            continue
        dot = before.dot
        if dot is None or dot.weight is None:
            return None
        return index if channels in (len(dot.nonzeros), dot.outputs // dot.spatial) else None
    return None


def _without_gaps(network: TracedNetwork, ops: list[Op | None], stored: list[Stored]) -> TracedNetwork:
    kept_before = [0]
    for op in ops:
        kept_before.append(kept_before[-1] + (op is not None))
    ends = {name: kept_before[count] for name, count in network.ends.items()}
    kept = tuple(op for op in ops if op is not None)
    return replace(network, ops=kept, stored=tuple(stored), ends=ends)
