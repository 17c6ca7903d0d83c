"""A traced network whose written-out quantisers are one conversion each, which is free."""

from collections.abc import Sequence
from dataclasses import replace

from micronet_cli.trace.channels import Readers
from micronet_cli.trace.conversions import Conversions
from micronet_cli.trace.layouts import Read
from micronet_cli.trace.records import ExecutedQuantizer, Op, TracedNetwork


def convert(network: TracedNetwork, conversions: Conversions) -> TracedNetwork:
    """The network with a ``quantize`` for the operations of each conversion, and with the quantisers that are left.

    An operation leaves where only conversions read what it makes; what others read too is executed all the same.
    """
    quantized = conversions.quantized
    parts: set[int] = set()
    for conversion in quantized.values():
        parts |= set(conversion.own_steps)
    left: set[int] = set()
    origins: set[int] = set()
    ops: list[Op | None] = list(network.ops)
    readers = Readers(network)
    # From the end: whether an operation leaves depends on those that read it.
    for index in sorted(parts, reverse=True):
        op = network.ops[index]
        (made,) = op.outputs
        reading = readers.all(made)
        is_read = reading is None or made in origins or not left.issuperset(reading)
        if is_read and made not in quantized:
            continue
        left.add(index)
        ops[index] = None
        if is_read:
            origin = quantized[made].origin
            origins.add(origin)
            ops[index] = _quantize(network, op, origin)
    kept = with_ops(network, ops)
    return replace(kept, quantizers=_used(kept, conversions.quantizers))


def _quantize(network: TracedNetwork, last: Op, origin: int) -> Op:
    """The conversion of a value into what the last of its operations made."""
    read = Read(origin, network.values[origin].layout)
    return Op(
        kind="quantize",
        layer=last.layer,
        inputs=(origin,),
        outputs=last.outputs,
        elements=last.elements,
        taken=last.elements,
        reads=(read,),
    )


def _used(network: TracedNetwork, quantizers: dict[str, ExecutedQuantizer]) -> dict[str, ExecutedQuantizer]:
    """The quantisers whose codes an operation reads or makes, or that made a stored tensor that is used."""
    names: set[str] = set()
    for op in network.ops:
        for value in (*op.inputs, *op.outputs):
            names |= network.values[value].quantizers or frozenset()
    for index in network.used:
        names.add(network.stored[index].quantizer or "")
    return {name: quantizer for name, quantizer in quantizers.items() if name in names}


def with_ops(network: TracedNetwork, ops: Sequence[Op | None]) -> TracedNetwork:
    """The network with these operations in place of its own, one for each; None for one that leaves."""
    kept: list[Op] = []
    kept_before = [0]  # of the first n operations, how many stay
    for op in ops:
        if op is not None:
            kept.append(op)
        kept_before.append(len(kept))
    ends = {}
    for name, count in network.ends.items():
        ends[name] = kept_before[count]
    calls = []
    for call in network.calls:
        first = kept_before[call.first]
        end = kept_before[call.end]
        calls.append(replace(call, first=first, end=end))
    return replace(network, ops=tuple(kept), ends=ends, calls=tuple(calls))
