"""What a network computes of its parameters alone, before inference: it is free, and makes stored tensors."""

from micronet_cli.trace.executed import Executed
from micronet_cli.trace.fake_quantizer_records import FakeQuantizerRecords
from micronet_cli.trace.fake_quantizers import FAKE_QUANTIZERS
from micronet_cli.trace.kinds import FACTORIES, MOVES, PRODUCTS
from micronet_cli.trace.known_tensors import KnownTensors


class Constants:
    """Follows stored tensors through operations that read no activation.

    Attributes:
        free_multiplications: those of convolutions and products.
        rounded: stored tensors that rounding made.
    """

    def __init__(self, known: KnownTensors, fake_quantizers: FakeQuantizerRecords) -> None:
        self.free_multiplications = 0
        self.rounded: set[int] = set()
        self._known = known
        self._fake_quantizers = fake_quantizers

    def see(self, executed: Executed, counted: bool) -> None:
        """Take in an operation; ``counted``: False within a quantiser, which says itself what it has made."""
        kind = executed.kind
        if kind in PRODUCTS:
            # No operand is told apart as the weight: all that matters is how much is multiplied.
            shape = executed.product(lambda _: True)
            self.free_multiplications += shape.multiplications
        roots = self._known.roots(executed.tensors)
        if not roots or kind in FACTORIES or not counted:
            return
        if kind in FAKE_QUANTIZERS:
            self._fake_quantizers.of_constant(executed)
            return
        self._follow(executed, roots)

    def _follow(self, executed: Executed, roots: tuple[int, ...]) -> None:
        """Arithmetic makes a stored tensor; moving one about leaves the old one."""
        known = self._known
        kind = executed.kind
        only_moved = kind in MOVES and len(roots) == 1
        for out in executed.outputs:
            if known.root(out) is not None:
                continue
            if only_moved:
                known.same_root(out, roots[0])
                continue
            origin = known.stored[roots[0]]
            name = f"{origin.name} ({kind})"
            made = known.add_stored(out, name, origin.layer, derived=True)
            if kind == "round" or not self.rounded.isdisjoint(roots):
                self.rounded.add(made)
