"""What scoring a network gives: its figures, tables and picture."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from micronet_cli.scoring.charges import Charge
from micronet_cli.scoring.figure import Panel, draw
from micronet_cli.scoring.memory import peak_activation_bytes
from micronet_cli.scoring.report_text import csv_text, ratios_text, rows_text, totals_text, waterfall_text
from micronet_cli.scoring.rules import Base, Rules
from micronet_cli.scoring.tables import Row, Total, WaterfallStep, by_part, rows, waterfall
from micronet_cli.tables import decimal
from micronet_cli.trace.records import FLOAT_BITS, Stored, TracedNetwork
from micronet_cli.trace.what_if import with_sparsity


@dataclass(frozen=True)
class ScoreReport:
    """What a network costs under a rule set, and its dense float network under the same.

    Attributes:
        compared: the same network under the rule set that ``rules.compare`` names, or None.
    """

    rules: Rules
    network: TracedNetwork
    charges: list[Charge] = field(repr=False)
    dense_charges: list[Charge] = field(repr=False)
    compared: "ScoreReport | None" = field(default=None, repr=False)

    @property
    def base(self) -> Base:
        """The task's base."""
        return self.rules.base(self.network.input_shape)

    @property
    def total(self) -> Total:
        """Sums of the network."""
        return Total.of(self.charges, self.base)

    @property
    def dense(self) -> Total:
        """Sums of the dense float network."""
        return Total.of(self.dense_charges, self.base)

    def metrics(self) -> dict[str, float | str]:
        """The flat figures of ``metrics.json``."""
        total = self.total
        dense = self.dense
        return {
            "micronet_score": total.score,
            "storage_params": total.storage_params,
            "storage_bytes": total.storage_bits / 8,
            "storage_score": total.storage_score,
            "math_ops": total.math_ops,
            "multiplications": total.multiplications,
            "additions": total.additions,
            "math_score": total.math_score,
            "mtas_bytes": peak_activation_bytes(self.network),
            "score_profile": self.rules.name,
            "dense_storage_bytes": dense.storage_bits / 8,
            "dense_math_ops": dense.math_ops,
            "dense_score": dense.score,
            **weight_figures(self.network, self.rules.weight_sparsity),
        }

    def rows(self, per: str = "layer") -> list[Row]:
        """One row a ``layer`` or a ``block``, in the order of execution.

        Raises:
            ValueError: ``per`` is something else.
        """
        what_if = self.rules.weight_sparsity
        network = self.network
        if what_if is not None:
            network = with_sparsity(network, what_if)
        return rows(
            self.charges,
            self.base,
            order=[op.layer for op in network.ops],
            per=per,
            weights=_weights(network),
        )

    def parts(self) -> dict[str, Total]:
        """Sums by heading."""
        return by_part(self.charges, self.base)

    def waterfall(self) -> list[WaterfallStep]:
        """From this rule set's score to the compared one's, heading by heading; empty without ``rules.compare``."""
        if self.compared is None:
            return []
        other = self.compared
        return waterfall(self.charges, self.base, other.charges, other.base)

    def table(self, per: str = "block") -> str:
        """The terminal's text: a row a block (or ``layer``), headings, totals, ratios, and the waterfall if any."""
        total = self.total
        dense = self.dense
        totals = self.parts()
        totals["all"] = total
        totals["dense float network"] = dense
        texts = [
            rows_text(self.rows(per), per),
            totals_text(totals),
            ratios_text(dense, total),
        ]
        if self.compared is not None:
            steps = self.waterfall()
            text = waterfall_text(self.rules, self.compared.rules, steps, total.score)
            texts.append(text)
        return "\n\n".join(texts)

    def csv(self) -> str:
        """The text of ``layers.csv``."""
        return csv_text(self.rows("layer"))

    def figure(self, top: int = 15) -> bytes:
        """A PNG of the ``top`` layers by storage and by operations."""
        base = self.base
        total = self.total
        of_score = f"of the score {decimal(total.score, 4)} ({self.rules.name})"
        storage = {}
        operations = {}
        for row in self.rows():
            storage[row.layer] = row.storage_params / base.params
            operations[row.layer] = row.math_ops / base.ops
        storage_title = f"storage: {decimal(total.storage_score, 4)} {of_score}"
        operations_title = f"operations: {decimal(total.math_score, 4)} {of_score}"
        storage_panel = Panel(storage_title, storage)
        operations_panel = Panel(operations_title, operations)
        return draw(storage_panel, operations_panel, top)


def weight_figures(network: TracedNetwork, what_if: float | None) -> dict[str, float]:
    """Zeros and bits of convolution and linear weights, and bits of their inputs: means over elements."""
    weights = _weights(network)
    sparsity = what_if or 0.0
    if what_if is None and weights:
        sparsity = _sparsity(weights)
    weight_elements = [weight.elements for weight in weights]
    weight_bits = [network.stored_bits[index] for index in network.weights]
    inputs = _weighted_inputs(network)
    input_elements = [network.values[index].elements for index in inputs]
    input_bits = [network.value_bits[index] for index in inputs]
    return {
        "weight_sparsity": sparsity,
        "weight_bits_mean": _mean_bits(weight_elements, weight_bits),
        "activation_bits_mean": _mean_bits(input_elements, input_bits),
    }


def _weights(network: TracedNetwork) -> list[Stored]:
    """The weights of all products."""
    return [network.stored[index] for index in network.weights]


def _sparsity(weights: Sequence[Stored]) -> float:
    """Zeros over elements."""
    elements = np.array([weight.elements for weight in weights], float)
    nonzeros = np.array([weight.nonzeros for weight in weights], float)
    zeros = elements - nonzeros
    return float(zeros.sum() / elements.sum())


def _weighted_inputs(network: TracedNetwork) -> list[int]:
    """The values that products with a weight read, once a product."""
    inputs: list[int] = []
    for op in network.ops:
        dot = op.dot
        if dot is not None and dot.weight is not None:
            inputs.extend(op.inputs)
    return inputs


def _mean_bits(elements: Sequence[int], bits: Sequence[int]) -> float:
    """Mean over elements; that of floats where there are none."""
    if not bits:
        return float(FLOAT_BITS)
    counts = np.array(elements, float)
    total = (counts * bits).sum()
    return float(total / counts.sum())
