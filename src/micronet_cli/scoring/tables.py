"""Sums of charges: by layer or block, by heading, and the difference between two rule sets."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from micronet_cli.scoring.charges import MULTIPLY, Charge
from micronet_cli.scoring.rules import Base
from micronet_cli.trace.records import Stored

# blocks.1.0, stages.0.blocks.1, layer1.0, features.3: the numbered part of a layer's name.
_BLOCK = re.compile(r"[^.]*\.\d+(?:\.(?:blocks?|layers?)\.\d+|\.\d+)*")


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
        return cls(
            storage_bits=float(sum(charge.storage_bits for charge in charges)),
            multiplications=float(sum(charge.multiplications for charge in charges)),
            additions=float(sum(charge.additions for charge in charges)),
            math_ops=float(sum(charge.math_ops for charge in charges)),
            base=base,
        )

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


@dataclass
class Row:
    """Costs of one layer or block.

    Attributes:
        bits: operand bits of its products (weight x input), or of what else it executes.
        score: its part of the score.
        share: that part over the whole score, in [0, 1].
        sparsity: zeros over elements of its products' weights, in [0, 1]; None where it has none.
    """

    layer: str
    storage_params: float = 0.0
    multiplications: float = 0.0
    additions: float = 0.0
    math_ops: float = 0.0
    bits: str = ""
    score: float = 0.0
    share: float = 0.0
    sparsity: float | None = None


@dataclass(frozen=True)
class WaterfallStep:
    """One heading's part of the difference between two scores."""

    part: str
    here: float
    there: float

    @property
    def effect(self) -> float:
        """What going there adds to the score."""
        return self.there - self.here


def rows(
    charges: Sequence[Charge],
    base: Base,
    order: Iterable[str],
    per: str,
    weights: Iterable[Stored] = (),
) -> list[Row]:
    """What each layer or block costs; those that cost nothing are left out.

    Args:
        charges: of the whole network.
        base: of the task.
        order: names of layers that come first, in this order.
        per: ``layer`` or ``block``.
        weights: of all products, for the rows' sparsity.

    Raises:
        ValueError: ``per`` is something else.
    """
    if per not in ("layer", "block"):
        raise ValueError(f"per={per}: must be layer or block")
    row_of = block_of if per == "block" else str
    found: dict[str, Row] = {}
    for layer in order:
        name = row_of(layer)
        found.setdefault(name, Row(name))
    product_bits: dict[str, dict[str, None]] = defaultdict(dict)  # row -> its bits, each once, in order
    for charge in charges:
        name = row_of(charge.layer)
        row = found.setdefault(name, Row(name))
        row.storage_params += charge.storage_bits / 32
        row.multiplications += charge.multiplications
        row.additions += charge.additions
        row.math_ops += charge.math_ops
        if charge.part == MULTIPLY:
            product_bits[name][charge.bits] = None
        elif charge.bits and not row.bits:
            row.bits = charge.bits
    sparsities = _sparsities(weights, row_of)
    total = Total.of(charges, base)
    for name, row in found.items():
        row.sparsity = sparsities.get(name)
        row.bits = " ".join(product_bits[name]) or row.bits
        storage_score = row.storage_params / base.params
        row.score = storage_score + row.math_ops / base.ops
        if total.score:
            row.share = row.score / total.score
    return [row for row in found.values() if row.score]


def _sparsities(weights: Iterable[Stored], row_of: Callable[[str], str]) -> dict[str, float]:
    """Zeros over elements of each row's weights."""
    members: dict[str, list[Stored]] = defaultdict(list)
    for stored in weights:
        row = row_of(stored.layer)
        members[row].append(stored)
    found = {}
    for row, tensors in members.items():
        nonzeros = sum(stored.nonzeros for stored in tensors)
        elements = sum(stored.elements for stored in tensors)
        found[row] = 1 - nonzeros / elements
    return found


def block_of(layer: str) -> str:
    """Name of the block that holds a layer.

    >>> block_of("blocks.1.0.se.conv_reduce"), block_of("stages.0.blocks.1.mlp.fc1"), block_of("conv_stem")
    ('blocks.1.0', 'stages.0.blocks.1', 'conv_stem')
    """
    found = _BLOCK.match(layer)
    return found.group() if found else layer


def by_part(charges: Sequence[Charge], base: Base) -> dict[str, Total]:
    """Sums by heading, in order of appearance."""
    found: dict[str, list[Charge]] = defaultdict(list)
    for charge in charges:
        found[charge.part].append(charge)
    totals = {}
    for part, charges_of_part in found.items():
        totals[part] = Total.of(charges_of_part, base)
    return totals


def waterfall(
    here: Sequence[Charge],
    here_base: Base,
    there: Sequence[Charge],
    there_base: Base,
) -> list[WaterfallStep]:
    """One step a heading, largest effect first; the effects add up to the difference of the scores."""
    ours = _scores(here, here_base)
    theirs = _scores(there, there_base)
    parts = dict.fromkeys([*ours, *theirs])
    steps = []
    for part in parts:
        step = WaterfallStep(part, ours[part], theirs[part])
        steps.append(step)
    return sorted(steps, key=lambda step: -abs(step.effect))


def _scores(charges: Sequence[Charge], base: Base) -> defaultdict[str, float]:
    """The score of each heading, 0 for those without a charge."""
    scores: defaultdict[str, float] = defaultdict(float)
    for part, total in by_part(charges, base).items():
        scores[part] = total.score
    return scores
