"""Many jobs: what became of each, and the summary of them all."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from micronet_cli.errors import Interrupted, JobsFailed, UserError
from micronet_cli.runs.directory import Run
from micronet_cli.strict_json import json_text
from micronet_cli.tables import text_table

SHOWN = {"top1": "{:.2f}", "micronet_score": "{:.5f}", "sparsity": "{:.3f}", "seconds": "{:.0f}"}
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
            self.status, self.reason = "interrupted", str(error).partition(";")[0] or "interrupted"
            raise Interrupted(self.reason) from None
        except UserError as error:
            self.status, self.reason, self.exit_code = "failed", "; ".join(str(error).splitlines()), error.exit_code
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            self.status, self.reason, self.exit_code = "failed", f"{type(error).__name__}: {first}", 1
            Run(directory, resume=True).write_text("traceback.txt", traceback.format_exc())
        finally:
            self.seconds = self.metrics.get("wall_seconds", time.perf_counter() - started)

    def row(self) -> dict[str, Any]:
        """The job's row in a summary; what there is no figure for is None."""
        return {
            "number": self.number,
            "overrides": self.overrides,
            "status": self.status,
            "reason": self.reason,
            "top1": self.metrics.get("top1"),
            "micronet_score": self.metrics.get("micronet_score"),
            "sparsity": self.metrics.get("weight_sparsity"),
            "seconds": round(self.seconds, 3),
            "directory": self.directory,
        }


def relative(directory: Path, root: Path) -> str:
    """``directory`` as seen from ``root``, so that both can be moved together; as it is where it lies elsewhere."""
    return str(directory.relative_to(root) if directory.is_relative_to(root) else directory)


def write_summary(directory: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write ``summary.csv`` and ``summary.json``, and claim the jobs' directories inside ``directory``."""
    run = Run(directory, resume=True)
    for row in rows:
        if not Path(row["directory"]).is_absolute():
            run.claim(row["directory"])
    run.write_text("summary.json", json_text(rows, indent=1) + "\n")
    flat = [row | {"overrides": " ".join(row["overrides"])} for row in rows]
    run.write_csv("summary.csv", flat)


def varied(outcomes: Sequence[Outcome]) -> list[str]:
    """Each job's overrides without those that all share.

    >>> varied([Outcome(0, ["a=1", "b=0"], "0"), Outcome(1, ["a=2", "b=0"], "1")])
    ['a=1', 'a=2']
    """
    shared = set.intersection(*(set(o.overrides) for o in outcomes)) if len(outcomes) > 1 else set()
    return [" ".join(text for text in o.overrides if text not in shared) for o in outcomes]


def table(outcomes: Sequence[Outcome], numbers: Sequence[int] | None = None) -> str:
    """Jobs and figures for the terminal: all, or those of ``numbers`` in their order."""
    rows = {}
    for outcome, own in zip(outcomes, varied(outcomes), strict=True):
        row = outcome.row()
        figures = {key: "-" if row[key] is None else pattern.format(row[key]) for key, pattern in SHOWN.items()}
        rows[outcome.number] = {"job": f"{outcome.number} {own}".rstrip(), "status": outcome.status} | figures
    return text_table([rows[number] for number in (rows if numbers is None else numbers)])


def raise_for_failed(outcomes: Sequence[Outcome], kind: str) -> None:
    """End with the reasons of those that failed.

    Raises:
        JobsFailed: at least one did.
    """
    failed = [(o, own) for o, own in zip(outcomes, varied(outcomes), strict=True) if o.status == "failed"]
    if not failed:
        return
    lines = [f"{kind} {o.number}{f' ({own})' if own else ''}: {o.reason}" for o, own in failed]
    if len(lines) > MOST_REASONS:
        lines = [*lines[:MOST_REASONS], f"and {len(lines) - MOST_REASONS} more, in the summary"]
    code = 2 if all(o.exit_code == 2 for o, _ in failed) else 1
    raise JobsFailed(f"{len(failed)} of {len(outcomes)} {kind}s failed:", lines, code)
