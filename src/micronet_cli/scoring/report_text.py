"""The texts that show sums of charges: the terminal's tables and ``layers.csv``."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from micronet_cli.scoring.rules import Rules
from micronet_cli.scoring.tables import Row, Total, WaterfallStep
from micronet_cli.tables import decimal, text_table

SHOWN_EFFECT = 5e-7  # the waterfall prints six decimals


def csv_text(table: Sequence[Row]) -> str:
    """Comma-separated rows under a line of names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Row.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in table)
    return text.getvalue()


def rows_text(table: Sequence[Row], per: str) -> str:
    """The rows with their counts, under the heading ``per``."""
    shown = []
    for row in table:
        line = {
            per: row.layer,
            "params": f"{row.storage_params:,.0f}",
            "multiplies": f"{row.multiplications:,.0f}",
            "additions": f"{row.additions:,.0f}",
            "ops": f"{row.math_ops:,.0f}",
            "bits": row.bits,
            "share": f"{row.share:.1%}",
        }
        shown.append(line)
    return text_table(shown)


def totals_text(totals: Mapping[str, Total]) -> str:
    """A line for each heading or sum."""
    shown = []
    for name, total in totals.items():
        line = {
            "heading": name,
            "params": f"{total.storage_params:,.0f}",
            "ops": f"{total.math_ops:,.0f}",
            "score": decimal(total.score, 4),
        }
        shown.append(line)
    return text_table(shown)


def ratios_text(dense: Total, here: Total) -> str:
    """How many times smaller than the dense network."""
    storage = _ratio(dense.storage_bits, here.storage_bits)
    operations = _ratio(dense.math_ops, here.math_ops)
    return f"dense over this: storage {storage}, operations {operations}"


def _ratio(dense: float, here: float) -> str:
    return f"{dense / here:.2f}" if here else "-"


def waterfall_text(here: Rules, there: Rules, steps: Sequence[WaterfallStep], score: float) -> str:
    """The way from one rule set's score to the other's, and how both count what differs.

    Args:
        here: the rule set of ``score``.
        there: the one it is compared with.
        steps: one a heading.
        score: under ``here``.
    """
    title = f"from {here.name} to {there.name}"
    lines = []
    for step in steps:
        line = {
            title: step.part,
            "effect": f"{step.effect:+.6f}",
            here.name: f"{step.here:.6f}",
            there.name: f"{step.there:.6f}",
        }
        lines.append(line)
    other = sum(step.there for step in steps)
    total = {
        title: "score",
        "effect": f"{other - score:+.6f}",
        here.name: f"{score:.6f}",
        there.name: f"{other:.6f}",
    }
    lines.append(total)
    notes = []
    for step in steps:
        if abs(step.effect) >= SHOWN_EFFECT:
            ours = here.notes.get(step.part, "none")
            theirs = there.notes.get(step.part, "none")
            notes.append(f"{step.part}: {here.name} {ours}; {there.name} {theirs}")
    return text_table(lines) + "\n\n" + "\n".join(notes)
