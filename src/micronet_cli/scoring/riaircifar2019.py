"""The arithmetic of RIAIR's CIFAR-100 entry to the 2019 MicroNet Challenge, kept for comparison only.

Source: ``flops_utils.py`` of branch cifar100 in https://github.com/peiswang/MicroNetChallenge. It counts as that of the
ImageNet entry (``riair2019``), where nothing else is said.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from micronet_cli.scoring.accumulators import HALF_BITS
from micronet_cli.scoring.charges import (
    ACCUMULATE,
    BIAS_ADD,
    BIASES,
    NON_LINEARITY,
    NORM,
    POOLING,
    SCALES,
    Charge,
)
from micronet_cli.scoring.riair2019 import Riair2019
from micronet_cli.trace.records import Dot, Op, TracedNetwork


@dataclass(frozen=True)
class Riaircifar2019(Riair2019):
    """Options as in ``Rules``, but two.

    ``nonlinearity_bits`` are those of the additions of biases and pools. null: 16, as it was entered (its type 0); 32:
    as it was ranked (type 4). It knows the accumulators adder_tree and fp32 (type 2).
    """

    notes: ClassVar[Mapping[str, str]] = {
        **Riair2019.notes,
        BIASES: "16 bits a layer, not a channel: C is the batch's size (count_scale_*: input.size(0))",
        SCALES: "the same; none of an input (count_act_quant)",
        ACCUMULATE: "products of floats: density x (k - 1) an output (count_conv_linear_FP32)",
        BIAS_ADD: "at nonlinearity_bits (count_scale_*)",
        NORM: "multiplies at 16 bits, additions at nonlinearity_bits; every output is scaled at 16 (count_scale_*)",
        NON_LINEARITY: "a ReLU before a quantiser is its clamp; the last takes 16 bits (count_act_quant, count_relu)",
        POOLING: "additions at nonlinearity_bits, the multiply at 16 (count_avgpool2d_*)",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.accumulator not in ("adder_tree", "fp32"):
            raise ValueError(f"accumulator={self.accumulator}: riaircifar2019 knows only adder_tree and fp32")

    def storage(self, network: TracedNetwork) -> list[Charge]:
        """Weights with a mask each, and 16 bits for every scale layer and for its bias, however many channels."""
        charges: list[Charge] = []
        for op in network.ops:
            if op.dot is not None and op.dot.weight is not None:
                stored = network.stored[op.dot.weight]
                charges += self._tensor(stored, network.stored_bits[op.dot.weight])
                charges.append(Charge(op.layer, SCALES, HALF_BITS))
                if op.dot.bias is not None:
                    charges.append(Charge(op.layer, BIASES, HALF_BITS))
            elif op.kind == "batch_norm":
                charges.append(Charge(op.layer, SCALES, HALF_BITS))
                charges.append(Charge(op.layer, BIASES, HALF_BITS))
        return charges

    @property
    def _addition_bits(self) -> float:
        return self.nonlinearity_bits or HALF_BITS

    def _product(self, op: Op, dot: Dot, network: TracedNetwork) -> Iterator[Charge]:
        for charge in super()._product(op, dot, network):
            if charge.part != BIAS_ADD or dot.bias is not None:
                yield charge

    def _bias_added(self, op: Op, dot: Dot) -> Charge:
        bits = dot.outputs * self._addition_bits
        return Charge(op.layer, BIAS_ADD, additions=dot.outputs, math_ops=bits / 32)

    def _priced(self, op: Op, network: TracedNetwork) -> list[Charge]:
        price = self.price(op)
        if op.kind == "relu" and _is_requantized(op, network):
            return []
        multiplications, additions = price.count(op)
        bits = multiplications * HALF_BITS + additions * self._addition_bits
        if not bits:
            return []
        charge = Charge(
            op.layer,
            price.part,
            multiplications=multiplications,
            additions=additions,
            math_ops=bits / 32,
            bits=f"{HALF_BITS}",
        )
        return [charge]


def _is_requantized(op: Op, network: TracedNetwork) -> bool:
    """Whether a quantiser reads what an operation makes."""
    quantizers = [reader for reader in network.ops if reader.kind == "quantize"]
    return any(quantizer.inputs[0] in op.outputs for quantizer in quantizers)
