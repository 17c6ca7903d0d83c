"""A traced network as it is deployed: BatchNorms that fold are a bias of the product before them."""

from dataclasses import replace

from micronet_cli.trace.batch_norm import folding_norms
from micronet_cli.trace.channels import RELAYS
from micronet_cli.trace.converted import with_ops
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
    folding = _Folding(network)
    product_of = folding_norms(network)
    for index, op in enumerate(network.ops):
        if op.kind not in BATCH_NORMS:
            continue
        if index in product_of:
            folding.fold(index, product_of[index])
        else:
            folding.keep(index)
    return folding.folded()


class _Folding:
    """A network's operations while BatchNorms leave them, None in the place of one that left."""

    def __init__(self, network: TracedNetwork) -> None:
        self.network = network
        self.ops: list[Op | None] = list(network.ops)
        self._stored = _StoredRows(network.stored)
        self._producer: dict[int, int] = {}
        for index, op in enumerate(network.ops):
            for value in op.outputs:
                self._producer[value] = index

    def keep(self, norm: int) -> None:
        """A BatchNorm that stays reads a scale and a bias instead of its four vectors."""
        op = self.network.ops[norm]
        layer = op.layer
        channels = self._channels(op)
        scale_row = Stored(f"{layer}.scale", layer, elements=channels, nonzeros=channels)
        bias_row = Stored(f"{layer}.bias", layer, elements=channels, nonzeros=channels)
        scale = self._stored.add(scale_row)
        bias = self._stored.add(bias_row)
        self.ops[norm] = replace(
            op,
            kind="batch_norm",
            parameters=(scale, bias),
            outputs=op.outputs[:1],
        )

    def fold(self, norm: int, product: int) -> None:
        """A BatchNorm becomes a bias of its product."""
        op = self.network.ops[norm]
        channels = self._channels(op)
        folded_into = self.ops[product]
        assert folded_into is not None
        dot = folded_into.dot
        assert dot is not None
        row = Stored(
            name=f"{folded_into.layer}.bias (folded {op.layer})",
            layer=folded_into.layer,
            elements=channels,
            nonzeros=channels,
            folded=True,
        )
        bias = self._stored.add(row, dot.weight)
        with_bias = replace(dot, bias=bias)
        self.ops[product] = replace(folded_into, dot=with_bias)
        self._hand_over_output(op)
        self.ops[norm] = None

    def _hand_over_output(self, norm: Op) -> None:
        """What made the BatchNorm's input, the product or a relay behind it, now makes its output."""
        output = norm.outputs[0]
        index = self._producer[norm.inputs[0]]
        last = self.ops[index]
        assert last is not None
        assert last.dot is not None or last.kind in RELAYS
        self.ops[index] = replace(last, outputs=(output,))
        self._producer[output] = index

    def _channels(self, norm: Op) -> int:
        """The length of any of its vectors; the running mean is always there in evaluation."""
        stored = self.network.stored
        lengths = [stored[parameter].elements for parameter in norm.parameters]
        return max(lengths)

    def folded(self) -> TracedNetwork:
        """The network without the operations that left."""
        network = with_ops(self.network, self.ops)
        return replace(network, stored=tuple(self._stored.rows))
