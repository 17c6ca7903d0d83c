"""The challenge's rules (rules text, organisers' counter, rulings of the review)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from micronet_cli.functional.counting import bitmask_bits, block_mask_bits, dense_bits
from micronet_cli.scoring.accumulators import accumulation_bits
from micronet_cli.scoring.charges import (
    ACCUMULATE,
    BIAS_ADD,
    BIASES,
    ELEMENTWISE,
    MASKS,
    MULTIPLY,
    NON_LINEARITY,
    NORM,
    POOLING,
    SCALES,
    WEIGHTS,
    Charge,
)
from micronet_cli.scoring.prices import Price
from micronet_cli.scoring.rules import Rules
from micronet_cli.trace.records import FLOAT_BITS, Dot, Op, Stored, TracedNetwork

FREEBIE_BITS = 16


@dataclass(frozen=True)
class Official(Rules):
    """Everything stored counts at its bits, every operation at the maximum of its inputs' bits, over 32.

    See ``Rules`` for the options.
    """

    notes: ClassVar[Mapping[str, str]] = {
        WEIGHTS: "effective non-zeros at their bits",
        MASKS: "one bit an element where that is smaller than dense",
        BIASES: "32 bits, folded BatchNorms included",
        SCALES: "every scale and zero point",
        MULTIPLY: "max of the operands' bits, every non-zero and position",
        ACCUMULATE: "max(n - 1, 0) an output at the accumulator's width",
        BIAS_ADD: "one an output at 32 bits",
        NON_LINEARITY: "table of prices at 32 bits (ReLU: its input's)",
        POOLING: "n - 1 additions and 1 multiply at 32 bits",
        ELEMENTWISE: "one an output element at its inputs' bits",
        NORM: "table of prices",
    }

    def storage(self, network: TracedNetwork) -> list[Charge]:
        """Weights with a mask where that is smaller, biases, scales and zero points."""
        self._check_freebie(network)
        weights = set(network.weights)
        charges = []
        for index in network.used:
            stored = network.stored[index]
            bits = self._stored_bits(network.stored_bits[index])
            if index in weights or stored.nonzeros < stored.elements:
                charges += self._tensor(stored, bits)
            else:
                dense = dense_bits(stored.elements, bits)
                charges.append(Charge(stored.layer, BIASES, dense))
        for quantizer in network.quantizers.values():
            charge = Charge(quantizer.layer, SCALES, quantizer.stored_bits)
            charges.append(charge)
        return charges

    def math(self, network: TracedNetwork) -> list[Charge]:
        """Products and priced operations, weighted by how many examples execute them."""
        self._check_freebie(network)
        charges: list[Charge] = []
        for index, op in enumerate(network.ops):
            here = self._charges_of(op, network)
            if self.paths:
                share = self.weight_of(index, network)
                charges += _times(share, here)
            else:
                charges += here
        return charges

    def _charges_of(self, op: Op, network: TracedNetwork) -> Iterable[Charge]:
        if op.dot is not None:
            return self._product(op, op.dot, network)
        return self._priced(op, network)

    def _check_freebie(self, network: TracedNetwork) -> None:
        if not self.freebie:
            return
        half_floats = [stored.name for stored in network.stored if stored.float_bits < FLOAT_BITS]
        reduced = [*network.quantizers, *half_floats]
        if reduced:
            raise ValueError(f"freebie=true: only where nothing is quantised, and {reduced[0]} is")

    def _stored_bits(self, bits: float) -> float:
        if not self.freebie:
            return bits
        return min(bits, FREEBIE_BITS)

    _multiply_bits = _stored_bits

    def _tensor(self, stored: Stored, bits: float) -> list[Charge]:
        """The smallest of dense, bitmask and block mask."""
        dense = dense_bits(stored.elements, bits)
        masked = bitmask_bits(stored.nonzeros, stored.elements, bits)
        # Bits of the whole form, and those of its values alone.
        forms = [(dense, dense), (masked, stored.nonzeros * bits)]
        if stored.kept_blocks is not None:
            size, kept, blocks = stored.kept_blocks
            in_blocks = block_mask_bits(kept, blocks, size, bits)
            forms.append((in_blocks, kept * size * bits))
        total, values = min(forms)
        charges = [Charge(stored.layer, WEIGHTS, values)]
        if total > values:
            charges.append(Charge(stored.layer, MASKS, total - values))
        return charges

    def _product(self, op: Op, dot: Dot, network: TracedNetwork) -> Iterator[Charge]:
        operands = [network.value_bits[i] for i in op.inputs]
        shown = "x".join(map(str, operands))
        if dot.weight is not None:
            weight = network.stored_bits[dot.weight]
            shown = f"{weight}x{max(operands)}"
            operands.append(weight)
        elif op.constant:
            operands.append(FLOAT_BITS)
        widest = self._binary_bits(op, dot, network) or max(operands)
        bits = self._multiply_bits(widest)
        count = dot.multiplications
        yield Charge(
            op.layer,
            MULTIPLY,
            multiplications=count,
            math_ops=count * bits / 32,
            bits=shown,
        )
        yield self._accumulated(op, dot, network)
        if dot.bias is not None:
            yield self._bias_added(op, dot)

    def _accumulated(self, op: Op, dot: Dot, network: TracedNetwork) -> Charge:
        """All additions of a product, the bias left out."""
        additions = dot.channel_additions.sum()
        added_bits = accumulation_bits(self.accumulator, op, dot, network)
        return Charge(
            op.layer,
            ACCUMULATE,
            additions=float(additions),
            math_ops=added_bits / 32,
        )

    def _bias_added(self, op: Op, dot: Dot) -> Charge:
        return Charge(
            op.layer,
            BIAS_ADD,
            additions=dot.outputs,
            math_ops=dot.outputs,
        )

    def _binary_bits(self, op: Op, dot: Dot, network: TracedNetwork) -> int | None:
        """1 where a value with a sign bit of its own meets weights of plus and minus one magnitude [T].

        A float has a sign bit; the codes of a quantiser, offset by their zero point, have none.
        """
        if dot.weight is None or not network.stored[dot.weight].binary:
            return None
        data = network.values[op.inputs[0]]
        if data.quantizers is not None:
            return None
        return 1

    def _priced(self, op: Op, network: TracedNetwork) -> list[Charge]:
        price = self.price(op)
        multiplications, additions = price.count(op)
        if not multiplications and not additions:
            return []
        bits = self._operand_bits(op, price, network)
        multiply_bits = self._multiply_bits(bits)
        charge = Charge(
            op.layer,
            price.part,
            multiplications=multiplications,
            additions=additions,
            math_ops=(multiplications * multiply_bits + additions * bits) / 32,
            bits=f"{bits:g}",
        )
        return [charge]

    def _operand_bits(self, op: Op, price: Price, network: TracedNetwork) -> float:
        """Bits of the widest operand, unless the price or an option says otherwise."""
        if price.part == NON_LINEARITY and self.nonlinearity_bits is not None:
            return self.nonlinearity_bits
        if price.as_float:
            return max(network.values[i].float_bits for i in op.inputs)
        if op.constant:
            return FLOAT_BITS
        data = [network.value_bits[i] for i in op.inputs]
        parameters = [network.stored_bits[i] for i in op.parameters]
        return max([*data, *parameters])


def _times(share: float, charges: Iterable[Charge]) -> Iterator[Charge]:
    """The mean over examples of charges that this share of them pays."""
    for charge in charges:
        yield charge._replace(
            multiplications=charge.multiplications * share,
            additions=charge.additions * share,
            math_ops=charge.math_ops * share,
        )
