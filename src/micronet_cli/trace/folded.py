"""A traced network as it is deployed: BatchNorms that fold are a bias of the product before them."""

from dataclasses import replace

from micronet_cli.trace.batch_norm import folding_norms
from micronet_cli.trace.channels import RELAYS
from micronet_cli.trace.kinds import BATCH_NORMS
from micronet_cli.trace.records import Op, Stored, TracedNetwork


class _StoredRows:
    """The stored tensors, growing: what is stored for a weight under a name is there once, however often it is read."""

    def __init__(self, rows: tuple[Stored, ...]) -> None:
        self.rows = list(rows)
        self._added: dict[tuple[str, int | None], int] = {}

    def add(self, row: Stored, weight: int | None = None) -> int:
        """The index of a row that is added the first time."""
        key = (row.name, weight)
        if key not in self._added:
            self._added[key] = len(self.rows)
            self.rows.append(row)
        return self._added[key]


def fold_batch_norms(network: TracedNetwork) -> TracedNetwork:
    """The network without foldable BatchNorms, whose scale is free (organisers' counter).

    The others cost a scale and a bias per channel.
    """
    product_of = folding_norms(network)
    ops: list[Op | None] = list(network.ops)
    producer = {value: index for index, op in enumerate(network.ops) for value in op.outputs}
    stored = _StoredRows(network.stored)
    for index, op in enumerate(network.ops):
        if op.kind not in BATCH_NORMS:
            continue
        # The length of any of its vectors; the running mean is always there in evaluation.
        channels = max(network.stored[parameter].elements for parameter in op.parameters)
        if index not in product_of:
            names = (f"{op.layer}.scale", f"{op.layer}.bias")
            parameters = tuple(stored.add(Stored(name, op.layer, channels, channels)) for name in names)
            ops[index] = replace(op, kind="batch_norm", parameters=parameters, outputs=op.outputs[:1])
            continue
        product = ops[product_of[index]]
        assert product is not None
        assert product.dot is not None
        name = f"{product.layer}.bias (folded {op.layer})"
        bias = stored.add(Stored(name, product.layer, channels, channels, folded=True), product.dot.weight)
        ops[product_of[index]] = replace(product, dot=replace(product.dot, bias=bias))
        # What made the BatchNorm's input, the product or a relay behind it, now makes its output.
        last = producer[op.inputs[0]]
        relay = ops[last]
        assert relay is not None
        assert relay.dot is not None or relay.kind in RELAYS
        ops[last] = replace(relay, outputs=op.outputs[:1])
        producer[op.outputs[0]] = last
        ops[index] = None
    return _without_gaps(network, ops, stored.rows)


def _without_gaps(network: TracedNetwork, ops: list[Op | None], stored: list[Stored]) -> TracedNetwork:
    kept: list[Op] = []
    kept_before = [0]
    for op in ops:
        if op is not None:
            kept.append(op)
        kept_before.append(len(kept))
    ends = {name: kept_before[count] for name, count in network.ends.items()}
    calls = tuple(replace(call, first=kept_before[call.first], end=kept_before[call.end]) for call in network.calls)
    return replace(network, ops=tuple(kept), stored=tuple(stored), ends=ends, calls=calls)
