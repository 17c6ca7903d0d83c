"""What is written down for torch's own fake-quantise operators."""

from micronet_cli.trace.conversions import Conversions
from micronet_cli.trace.executed import Executed
from micronet_cli.trace.fake_quantizers import FakeQuantizing
from micronet_cli.trace.known_tensors import KnownTensors, layout_of
from micronet_cli.trace.layouts import Read
from micronet_cli.trace.records import ExecutedQuantizer, Op


class FakeQuantizerRecords:
    """Writes them into the lists of a recorder."""

    def __init__(self, known: KnownTensors, ops: list[Op], conversions: Conversions) -> None:
        self.known = known
        self.ops = ops
        self.conversions = conversions

    def of_constant(self, executed: Executed) -> None:
        """What the operator makes of a stored tensor is that tensor in codes."""
        call = FakeQuantizing.of(executed.kind, executed.args)
        out = executed.outputs[0]
        root = self.known.root(call.x)
        if root is None:
            return
        if not call.enabled:
            self.known.same_root(out, root)
            return
        origin = self.known.stored[root]
        name = f"{origin.name} ({executed.kind})"
        quantizer = ExecutedQuantizer(name, origin.layer, call.bits, call.weight_qparams_bits)
        self.conversions.add(quantizer)
        self.known.add_stored(out, origin.name, origin.layer, name, origin.derived)

    def of_activation(self, executed: Executed, layer: str) -> bool:
        """Whether the operator leaves codes of one scale, as is written down then.

        Scales of channels do not factor out of the sums over these channels.
        """
        call = FakeQuantizing.of(executed.kind, executed.args)
        value = self.known.activation(call.x)
        if value is None or call.axis is not None:
            return False
        kind = "clone"
        codes = self.known.values[value].quantizers
        if call.enabled:
            kind = "quantize"
            made = len(self.known.values)
            name = self.conversions.add_activation(made, layer, call.bits, call.codes)
            codes = frozenset([name])
        out = executed.outputs[0]
        read = Read(value, layout_of(call.x))
        op = Op(
            kind=kind,
            layer=layer,
            inputs=(value,),
            outputs=(self.known.add_value(out, codes),),
            elements=out.numel(),
            taken=out.numel(),
            reads=(read,),
        )
        self.ops.append(op)
        return True
