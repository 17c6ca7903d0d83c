"""Sums of charges, and the texts that show them."""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from micronet_cli.scoring.charges import MULTIPLY, Charge
from micronet_cli.scoring.rules import Base
from micronet_cli.tables import text_table
from micronet_cli.trace.records import Stored

if TYPE_CHECKING:
    from micronet_cli.scoring.score_report import ScoreReport

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
    charges: Sequence[Charge], base: Base, order: Iterable[str], per: str, weights: Iterable[Stored] = ()
) -> list[Row]:
    """Rows ``per`` layer or block; the names in ``order`` come first, ``weights`` say how sparse each is."""
    if per not in ("layer", "block"):
        raise ValueError(f"per={per}: layer or block is wanted")
    name = block_of if per == "block" else str
    found = {name(layer): Row(name(layer)) for layer in order}
    bits: dict[str, dict[str, None]] = defaultdict(dict)
    for c in charges:
        row = found.setdefault(name(c.layer), Row(name(c.layer)))
        row.storage_params += c.storage_bits / 32
        row.multiplications += c.multiplications
        row.additions += c.additions
        row.math_ops += c.math_ops
        if c.part == MULTIPLY:
            bits[row.layer][c.bits] = None
        elif c.bits and not row.bits:
            row.bits = c.bits
    for layer, of_layer in _grouped(weights, name).items():
        if layer in found:
            found[layer].sparsity = 1 - sum(s.nonzeros for s in of_layer) / sum(s.elements for s in of_layer)
    score = Total.of(charges, base).score
    for row in found.values():
        row.bits = " ".join(bits[row.layer]) or row.bits
        row.score = row.storage_params / base.params + row.math_ops / base.ops
        row.share = row.score / score if score else 0.0
    return [row for row in found.values() if row.score]


def _grouped(weights: Iterable[Stored], name: Callable[[str], str]) -> dict[str, list[Stored]]:
    found: dict[str, list[Stored]] = defaultdict(list)
    for stored in weights:
        found[name(stored.layer)].append(stored)
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
    return {part: Total.of(of_part, base) for part, of_part in found.items()}


def waterfall(
    here: Sequence[Charge], here_base: Base, there: Sequence[Charge], there_base: Base
) -> list[WaterfallStep]:
    """One step a heading, largest effect first; the effects add up to the difference of the scores."""
    ours, theirs = by_part(here, here_base), by_part(there, there_base)
    steps = [
        WaterfallStep(part, ours[part].score if part in ours else 0.0, theirs[part].score if part in theirs else 0.0)
        for part in dict.fromkeys([*ours, *theirs])
    ]
    return sorted(steps, key=lambda step: -abs(step.effect))


def csv_text(table: Sequence[Row]) -> str:
    """Comma-separated rows under a line of names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Row.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in table)
    return text.getvalue()


def report_text(report: "ScoreReport", per: str) -> str:
    """Everything that the terminal shows; see ``ScoreReport.table``."""
    layers = [
        {
            per: row.layer,
            "params": f"{row.storage_params:,.0f}",
            "multiplies": f"{row.multiplications:,.0f}",
            "additions": f"{row.additions:,.0f}",
            "ops": f"{row.math_ops:,.0f}",
            "bits": row.bits,
            "share": f"{row.share:.1%}",
        }
        for row in report.rows(per)
    ]
    sums = {**report.parts(), "all": report.total, "dense float network": report.dense}
    headings = [
        {"heading": name, "params": f"{t.storage_params:,.0f}", "ops": f"{t.math_ops:,.0f}", "score": f"{t.score:.4f}"}
        for name, t in sums.items()
    ]
    storage = _ratio(report.dense.storage_bits, report.total.storage_bits)
    math = _ratio(report.dense.math_ops, report.total.math_ops)
    ratios = f"dense over this: storage {storage}, operations {math}"
    return "\n\n".join([text_table(layers), text_table(headings), ratios, *_waterfall_text(report)])


def _ratio(dense: float, here: float) -> str:
    return f"{dense / here:.2f}" if here else "-"


def _waterfall_text(report: "ScoreReport") -> list[str]:
    if report.compared is None:
        return []
    here, there = report.rules, report.compared.rules
    lines = [
        {
            f"from {here.name} to {there.name}": step.part,
            "effect": f"{step.effect:+.6f}",
            here.name: f"{step.here:.6f}",
            there.name: f"{step.there:.6f}",
        }
        for step in report.waterfall()
    ]
    both = (report.total.score, sum(step.there for step in report.waterfall()))
    lines.append(dict(zip(lines[0], ("score", f"{both[1] - both[0]:+.6f}", *(f"{b:.6f}" for b in both)), strict=True)))
    changed = [step.part for step in report.waterfall() if abs(step.effect) >= 5e-7]
    notes = [
        f"{part}: {here.name} {here.notes.get(part, 'none')}; {there.name} {there.notes.get(part, 'none')}"
        for part in changed
    ]
    return [text_table(lines), "\n".join(notes)]
