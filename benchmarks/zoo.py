"""Every family of timm through the whole of micronet: what holds, to what bound, or why it is refused.

    python benchmarks/zoo.py [--families coat levit] [--jobs 2] [--limit 600] [--output benchmarks/zoo.md]

Of every timm module its smallest network at the smallest input that it takes (``zoo_families.csv``), with random
weights, every parameter and statistic drawn anew:

- attach, prune to 65 %, quantise to 4-bit weights and inputs, save;
- in a fresh process: load, score, pack, read back, ONNX, onnxruntime;
- in a third: drop 30 % of the filters, take them out, in double precision.

A process that needs more than ``--limit`` seconds is ended, and the step before is named. An hour on two cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from markdown_page import write_page
from zoo_families import Member, read_members

STEPS = Path(__file__).with_name("zoo_steps.py")
PARTS = ("build", "files", "shrink")
COLUMNS = (
    "family", "network", "side", "zeros", "weight bits", "input bits", "loaded again", "packed file", "differing codes",
    "onnxruntime", "differing codes there", "end to end", "channels removed", "layers left", "shrunk",
    "seconds", "refused or failed",
)  # fmt: skip

ERRORS = """Errors are the largest difference over the largest logit:

- loaded again: the checkpoint in another process against what was saved;
- packed file: in double precision, with the same integers behind every quantiser;
- onnxruntime: in single precision, with PyTorch's integers behind every quantiser; the codes that differ lie on a tie;
- end to end: the same without them, where one code on a tie carries all codes behind it along;
- layers left: with dead outputs that cannot be followed and stay whole, which stage=shrink names;
- shrunk: without dead channels against with them, in double precision."""


@dataclass
class Row:
    """What one family gave.

    Attributes:
        figures: of all steps that ended well, by name.
        seconds: of all steps together.
        problems: refusals, faults and time limits, one line each.
    """

    member: Member
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def cells(self) -> list[str]:
        """The row of the page."""
        found = self.figures
        return [
            self.member.family,
            self.member.network,
            str(self.member.side),
            _number(found, "weight_sparsity", ".3f"),
            _number(found, "weight_bits_mean", ".2f"),
            _number(found, "activation_bits_mean", ".2f"),
            _number(found, "reload_error", ".1e"),
            _number(found, "packed_error", ".1e"),
            _number(found, "differing_codes", "d"),
            _number(found, "onnx_error_alone", ".1e"),
            _number(found, "onnx_differing_codes", "d"),
            _number(found, "onnx_error", ".1e"),
            _number(found, "removed", "d"),
            _number(found, "left_layers", "d"),
            _number(found, "shrink_error", ".1e"),
            f"{self.seconds:.0f}",
            "; ".join(self.problems),
        ]


def _number(figures: dict[str, Any], key: str, form: str) -> str:
    return format(figures[key], form) if key in figures else ""


def examine(member: Member, limit_seconds: float) -> Row:
    """All steps of one family."""
    row = Row(member)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "network.safetensors"
        for part in PARTS:
            if part == "files" and not file.is_file():
                continue  # the part before says why
            _run_part(row, part, file, limit_seconds)
    print(" | ".join(row.cells()), flush=True)
    return row


def _run_part(row: Row, part: str, file: Path, limit_seconds: float) -> None:
    """One process; its figures and problems go into the row."""
    member = row.member
    resizes = str(int(member.resizes))
    command = [sys.executable, str(STEPS), part, member.network, str(member.side), resizes, str(file)]
    log = file.with_suffix(f".{part}")
    with log.open("w") as output:
        try:
            done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, timeout=limit_seconds, check=False)
            ended = f"ended with {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            ended = f"not done after {limit_seconds:.0f} s"
    last = "start"
    for told in _lines(log):
        last = told.pop("step")
        row.seconds += told.pop("seconds")
        for kind in ("refused", "fault"):
            if kind in told:
                row.problems.append(f"{last}: {kind}: {told.pop(kind)}".replace("|", "/"))
        row.figures |= told
    if ended:
        row.problems.append(f"{part}, after {last}: {ended}")


def _lines(log: Path) -> Iterator[dict[str, Any]]:
    for line in log.read_text().splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def main() -> None:
    """Write the page of the families asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="*", help="timm modules; default: all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds a process may take")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/zoo.md"))
    arguments = parser.parse_args()
    members = read_members()
    if arguments.families:
        members = [member for member in members if member.family in arguments.families]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        rows = list(pool.map(lambda member: examine(member, arguments.limit), members))
    clean = [row for row in rows if not row.problems]
    told = (
        f"torch {torch.__version__}, timm {timm.__version__}, CPU. "
        f"{len(clean)} of {len(rows)} families go through every step.\n\n{ERRORS}"
    )
    write_page(arguments.output, "The zoo", told, COLUMNS, [row.cells() for row in rows])


if __name__ == "__main__":
    main()
