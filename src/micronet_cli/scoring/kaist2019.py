"""The arithmetic of KAIST AI's entry to the 2019 MicroNet Challenge, kept for comparison only.

Source: https://github.com/Kthyeon/micronet_neurips_challenge: ``Counting/count_hooks.py`` and ``micro_score`` in
``(revised)Score_MicroNet.ipynb``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from micronet_cli.scoring.charges import (
    ACCUMULATE,
    BIAS_ADD,
    BIASES,
    ELEMENTWISE,
    MASKS,
    MULTIPLY,
    NON_LINEARITY,
    POOLING,
    WEIGHTS,
    Charge,
)
from micronet_cli.scoring.official import Official
from micronet_cli.scoring.prices import Price
from micronet_cli.trace.records import Dot, Op, Stored, TracedNetwork


@dataclass(frozen=True)
class Kaist2019(Official):
    """Its counter hooks modules: what no module does is not counted."""

    freebie: bool = True

    notes: ClassVar[Mapping[str, str]] = {
        WEIGHTS: "non-zeros at 16 bits",
        MASKS: "one bit an element of every weight (bitmask)",
        BIASES: "as official",
        MULTIPLY: "as official",
        ACCUMULATE: "the classifier's: density x (n - 1) an output (count_linear)",
        BIAS_ADD: "none in the classifier (count_linear)",
        NON_LINEARITY: "as official",
        POOLING: "n additions a mean (count_adap_avgpool)",
        ELEMENTWISE: "none: gates and sums are no modules (register_hooks)",
    }

    def _tensor(self, stored: Stored, bits: float) -> list[Charge]:
        values = Charge(stored.layer, WEIGHTS, stored.nonzeros * bits)
        mask = Charge(stored.layer, MASKS, stored.elements)
        return [values, mask]

    def _product(self, op: Op, dot: Dot, network: TracedNetwork) -> Iterator[Charge]:
        is_classifier = op.kind != "convolution"
        for charge in super()._product(op, dot, network):
            if charge.part != BIAS_ADD or not is_classifier:
                yield charge

    def _accumulated(self, op: Op, dot: Dot, network: TracedNetwork) -> Charge:
        nonzeros = float(dot.nonzeros.sum()) * dot.repeats
        additions = nonzeros - dot.outputs
        if op.kind != "convolution":
            additions = nonzeros - nonzeros / dot.terms
        return Charge(op.layer, ACCUMULATE, additions=additions, math_ops=additions)

    def price(self, op: Op) -> Price:
        """The operation's price; a mean's has one addition more."""
        price = super().price(op)
        if price.part == POOLING:
            return replace(price, rows=(1, 0))
        return price

    def _priced(self, op: Op, network: TracedNetwork) -> list[Charge]:
        if self.price(op).part == ELEMENTWISE:
            return []
        return super()._priced(op, network)
