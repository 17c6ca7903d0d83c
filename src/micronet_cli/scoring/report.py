"""From charges to figures: the score, the rows of a table, the figures of ``metrics.json``."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from micronet_cli.scoring.charges import MULTIPLY, Charge
from micronet_cli.scoring.memory import peak_activation_bytes
from micronet_cli.scoring.records import Network
from micronet_cli.scoring.rules import Base, Rules


@dataclass
class Row:
    """One layer's costs; ``share`` is its part of the score, in [0, 1]."""

    layer: str
    storage_params: float = 0.0
    multiplications: float = 0.0
    additions: float = 0.0
    math_ops: float = 0.0
    bits: str = ""
    score: float = 0.0
    share: float = 0.0


@dataclass(frozen=True)
class Total:
    """Sums of a list of charges.

    Attributes:
        storage_bits: bits stored.
        multiplications, additions: raw counts.
        math_ops: weighted by bits / 32.
    """

    storage_bits: float
    multiplications: float
    additions: float
    math_ops: float
    base: Base

    @classmethod
    def of(cls, charges: Sequence[Charge], base: Base) -> "Total":
        """The sums."""
        names = ("storage_bits", "multiplications", "additions", "math_ops")
        bits, multiplications, additions, math_ops = (float(sum(getattr(c, name) for c in charges)) for name in names)
        return cls(bits, multiplications, additions, math_ops, base)

    @property
    def storage_params(self) -> float:
        """Parameters of 32 bits."""
        return self.storage_bits / 32

    @property
    def storage_score(self) -> float:
        """Storage over the base's."""
        return self.storage_params / self.base.params

    @property
    def math_score(self) -> float:
        """Operations over the base's."""
        return self.math_ops / self.base.ops

    @property
    def score(self) -> float:
        """The MicroNet score."""
        return self.storage_score + self.math_score


@dataclass(frozen=True)
class Report:
    """What a network costs under a rule set, and its dense float network under the same.

    Attributes:
        compared: (name, charges, base) of the rule set that ``rules.compare`` names, or None.
    """

    rules: Rules
    network: Network
    charges: list[Charge] = field(repr=False)
    dense_charges: list[Charge] = field(repr=False)
    compared: tuple[str, list[Charge], Base] | None = field(default=None, repr=False)

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
        total, dense = self.total, self.dense
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

    def rows(self) -> list[Row]:
        """One row a layer, in the order of execution."""
        rows: dict[str, Row] = {}
        for op in self.network.ops:
            rows.setdefault(op.layer, Row(op.layer))
        for c in self.charges:
            row = rows.setdefault(c.layer, Row(c.layer))
            row.storage_params += c.storage_bits / 32
            row.multiplications += c.multiplications
            row.additions += c.additions
            row.math_ops += c.math_ops
            row.bits = c.bits if c.part == MULTIPLY else row.bits or c.bits
        score = self.total.score
        for row in rows.values():
            row.score = row.storage_params / self.base.params + row.math_ops / self.base.ops
            row.share = row.score / score if score else 0.0
        return [row for row in rows.values() if row.score]

    def parts(self) -> dict[str, Total]:
        """Sums by heading."""
        return by_part(self.charges, self.base)


def by_part(charges: Sequence[Charge], base: Base) -> dict[str, Total]:
    """Sums by heading, in order of appearance."""
    found: dict[str, list[Charge]] = defaultdict(list)
    for charge in charges:
        found[charge.part].append(charge)
    return {part: Total.of(of_part, base) for part, of_part in found.items()}


def weight_figures(network: Network, what_if: float | None) -> dict[str, float]:
    """Zeros and bits of convolution and linear weights, and bits of their inputs: means over elements."""
    weights = [(network.stored[i], network.stored_bits[i]) for i in network.weights]
    elements = np.array([s.elements for s, _ in weights], float)
    zeros = elements - np.array([s.nonzeros for s, _ in weights], float)
    inputs = [
        (network.values[i].elements, network.value_bits[i])
        for op in network.ops
        if op.dot is not None and op.dot.weight is not None
        for i in op.inputs
    ]
    return {
        "weight_sparsity": float(zeros.sum() / elements.sum()) if what_if is None and weights else what_if or 0.0,
        "weight_bits_mean": _mean(elements, [b for _, b in weights]),
        "activation_bits_mean": _mean(np.array([n for n, _ in inputs], float), [b for _, b in inputs]),
    }


def _mean(elements: np.ndarray, bits: list[int]) -> float:
    return float((elements * bits).sum() / elements.sum()) if len(bits) else 32.0
