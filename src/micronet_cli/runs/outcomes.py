"""Many jobs: what became of each, and the summary of them all."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from micronet_cli.errors import Interrupted, JobsFailed, UserError
from micronet_cli.runs.directory import Run
from micronet_cli.strict_json import json_text
from micronet_cli.tables import decimal, text_table

SHOWN: dict[str, Callable[[Any], str]] = {
    "top1": "{:.2f}".format,
    "split": str,
    "val_top1": "{:.2f}".format,
    "micronet_score": partial(decimal, decimals=5),
    "sparsity": "{:.3f}".format,
    "seconds": "{:.0f}".format,
}
MOST_REASONS = 10


@dataclass
class Outcome:
    """One job.

    Attributes:
        number: its place in the sweep, from 0.
        overrides: what it was told, ``key=value``.
        directory: its run's directory, relative to the sweep's where it lies inside.
        status: running, completed, interrupted or failed.
        reason: why it failed or stopped, on one line.
        metrics: what its metrics.json holds, where it completed.
        seconds: how long it took.
        exit_code: 0, 2 for a user's mistake, 1 for anything else that failed.
    """

    number: int
    overrides: list[str]
    directory: str
    status: str = "running"
    reason: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    exit_code: int = 0

    def attempt(self, work: Callable[[], dict[str, Any]], directory: Path) -> None:
        """Do ``work`` and note how it ends; a traceback nobody expected goes to ``directory``/traceback.txt.

        Raises:
            Interrupted: a signal asked to stop, which holds for all jobs.
        """
        started = time.perf_counter()
        try:
            self.metrics = work()
            self.status = "completed"
        except (Interrupted, KeyboardInterrupt) as error:
            # What follows a semicolon tells one run's user how to go on.
            stopped, _, _ = str(error).partition(";")
            self.status = "interrupted"
            self.reason = stopped or "interrupted"
            raise Interrupted(self.reason) from None
        except UserError as error:
            lines = str(error).splitlines()
            self._fail("; ".join(lines), error.exit_code)
        except Exception as error:
            first, _, _ = str(error).strip().partition("\n")
            self._fail(f"{type(error).__name__}: {first}", exit_code=1)
            run = Run(directory, resume=True)
            run.write_text("traceback.txt", traceback.format_exc())
        finally:
            elapsed = time.perf_counter() - started
            self.seconds = self.metrics.get("wall_seconds", elapsed)

    def _fail(self, reason: str, exit_code: int) -> None:
        self.status = "failed"
        self.reason = reason
        self.exit_code = exit_code

    def row(self) -> dict[str, Any]:
        """The job's row in a summary; what there is no figure for is None.

        ``top1`` is that of ``split``. Jobs are to be compared by ``val_top1``, so that what is reported chooses none.
        """
        top1 = self.metrics.get("top1")
        split = self.metrics.get("split")
        val_top1 = self.metrics.get("val_top1")
        if split == "val":
            val_top1 = top1
        return {
            "number": self.number,
            "overrides": self.overrides,
            "status": self.status,
            "reason": self.reason,
            "top1": top1,
            "split": split,
            "val_top1": val_top1,
            "micronet_score": self.metrics.get("micronet_score"),
            "sparsity": self.metrics.get("weight_sparsity"),
            "seconds": round(self.seconds, 3),
            "directory": self.directory,
        }


def relative(directory: Path, root: Path) -> str:
    """``directory`` as seen from ``root``, so that both can be moved together; as it is where it lies elsewhere."""
    if directory.is_relative_to(root):
        directory = directory.relative_to(root)
    return str(directory)


def write_summary(directory: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write ``summary.csv`` and ``summary.json``, and claim the jobs' directories inside ``directory``."""
    run = Run(directory, resume=True)
    for row in rows:
        if not Path(row["directory"]).is_absolute():
            run.claim(row["directory"])
    text = json_text(rows, indent=1)
    run.write_text("summary.json", text + "\n")
    flat = []
    for row in rows:
        overrides = " ".join(row["overrides"])
        flat.append(row | {"overrides": overrides})
    run.write_csv("summary.csv", flat)


def varied(outcomes: Sequence[Outcome]) -> list[str]:
    """Each job's overrides without those that all share.

    >>> varied([Outcome(0, ["a=1", "b=0"], "0"), Outcome(1, ["a=2", "b=0"], "1")])
    ['a=1', 'a=2']
    """
    shared: set[str] = set()
    if len(outcomes) > 1:
        all_overrides = [set(outcome.overrides) for outcome in outcomes]
        shared = set.intersection(*all_overrides)
    texts = []
    for outcome in outcomes:
        own = [override for override in outcome.overrides if override not in shared]
        texts.append(" ".join(own))
    return texts


def table(outcomes: Sequence[Outcome], numbers: Sequence[int] | None = None) -> str:
    """Jobs and figures for the terminal: all, or those of ``numbers`` in their order."""
    rows = {}
    for outcome, own in zip(outcomes, varied(outcomes), strict=True):
        name = f"{outcome.number} {own}"
        row = {"job": name.rstrip(), "status": outcome.status}
        rows[outcome.number] = row | _figures(outcome)
    if numbers is None:
        return text_table(list(rows.values()))
    return text_table([rows[number] for number in numbers])


def _figures(outcome: Outcome) -> dict[str, str]:
    """The shown figures of a job as text; a dash for one that it does not have."""
    row = outcome.row()
    texts = {}
    for key, shown in SHOWN.items():
        figure = row[key]
        texts[key] = "-" if figure is None else shown(figure)
    return texts


def raise_for_failed(outcomes: Sequence[Outcome], kind: str) -> None:
    """End with the reasons of those that failed.

    Raises:
        JobsFailed: at least one did.
    """
    failed = []
    reasons = []
    for outcome, own in zip(outcomes, varied(outcomes), strict=True):
        if outcome.status == "failed":
            what = f" ({own})" if own else ""
            failed.append(outcome)
            reasons.append(f"{kind} {outcome.number}{what}: {outcome.reason}")
    if not failed:
        return
    if len(reasons) > MOST_REASONS:
        hidden = len(reasons) - MOST_REASONS
        reasons = reasons[:MOST_REASONS]
        reasons.append(f"and {hidden} more, in the summary")
    only_mistakes = all(outcome.exit_code == 2 for outcome in failed)
    summary = f"{len(failed)} of {len(outcomes)} {kind}s failed:"
    raise JobsFailed(summary, reasons, exit_code=2 if only_mistakes else 1)
