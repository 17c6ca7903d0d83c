"""What one quantisation is, what it gave, and the table of them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from finished_rows import Row
from markdown_page import mean_and_deviation

COLUMNS = (
    "network, widths", "method", "seeds", "top-1 %", "to float", "agreement %", "logits' error dB",
    "processor s", "peak MiB", "failed",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One quantisation.

    Attributes:
        network: ``lite0`` or ``resnet20``.
        weight_bits, activation_bits: of all layers but the stem.
        method: a preset of ``ptq=``, or a peer.
        seed: draws the calibration images, and whatever the method draws.
        source: the commit of what makes the row.
        images: most images to calibrate and to evaluate; None: all.
    """

    network: str
    weight_bits: int
    activation_bits: int
    method: str
    seed: int
    source: str
    images: int | None = None

    @property
    def widths(self) -> str:
        """As ``w4a8``."""
        return f"w{self.weight_bits}a{self.activation_bits}"

    @property
    def name(self) -> str:
        """A path of its own."""
        return f"{self.network}/{self.widths}/{self.method}/{self.seed}"


@dataclass(frozen=True)
class Fidelity:
    """A quantised network beside the network in float, on the same images.

    Attributes:
        top1: percent.
        drop: top-1 less that in float, in points.
        agreement: images of which both say the same class, in percent.
        error_db: squared error of the logits over their squared length, in decibels.
    """

    top1: float
    drop: float
    agreement: float
    error_db: float


def top1(logits: np.ndarray, labels: np.ndarray) -> float:
    """Percent of the images whose class has the largest logit."""
    return 100 * float((logits.argmax(1) == labels).mean())


def fidelity(logits: np.ndarray, in_float: np.ndarray, labels: np.ndarray) -> Fidelity:
    """Compare logits ``[N, classes]`` with those in float."""
    exact = in_float.astype(np.float64)
    error = float(np.square(logits - exact).sum() / np.square(exact).sum())
    same = logits.argmax(1) == in_float.argmax(1)
    own = top1(logits, labels)
    return Fidelity(
        top1=own,
        drop=own - top1(in_float, labels),
        agreement=100 * float(same.mean()),
        error_db=_decibels(error),
    )


def _decibels(ratio: float) -> float:
    return 10 * math.log10(ratio) if ratio > 0 else -math.inf


def table(rows: Iterable[Row[Task]]) -> list[list[str]]:
    """A line for each network, widths and method, over its seeds, in the order of the rows."""
    groups: dict[tuple[str, str, str], list[Row[Task]]] = {}
    for row in rows:
        task = row.task
        groups.setdefault((task.network, task.widths, task.method), []).append(row)
    lines = []
    for (network, widths, method), members in groups.items():
        line = [f"{network} {widths}", method, *_cells(members)]
        lines.append(line)
    return lines


def _cells(rows: Sequence[Row[Task]]) -> list[str]:
    done = [row.figures for row in rows if not row.failed]
    reasons = dict.fromkeys(row.failed.replace("|", "/") for row in rows if row.failed)
    seeds = ", ".join(str(row.task.seed) for row in rows)
    failed = "; ".join(reasons)
    if not done:
        return [seeds, *[""] * 6, failed]
    peak = max(figures["peak_mb"] for figures in done)
    return [
        seeds,
        _spread(done, "top1", ".2f"),
        _spread(done, "drop", "+.2f"),
        _spread(done, "agreement", ".1f"),
        _spread(done, "error_db", ".1f"),
        _spread(done, "processor_seconds", ".0f"),
        f"{peak:.0f}",
        failed,
    ]


def _spread(rows: Sequence[dict[str, float]], name: str, form: str) -> str:
    return mean_and_deviation([row[name] for row in rows], form)
