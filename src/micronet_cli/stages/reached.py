"""What a pipeline reached of what its budget asked for, what that cost in accuracy, and which files came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from micronet_cli.explore.budgets import FIGURES, LATENCY
from micronet_cli.tables import text_table

CHECKPOINT = "checkpoints/best.safetensors"
# What the steps about the final network write.
OF_STEPS = ("model.mnet", "model.onnx", "model.int8.onnx", "model.safetensors", "report.html")


@dataclass(frozen=True)
class Reached:
    """A budget, and the networks at both ends of a pipeline.

    Attributes:
        target: name and amount of what was asked for.
        dense: metrics of the first network.
        final: metrics of the last one.
    """

    target: tuple[str, float]
    dense: Mapping[str, Any]
    final: Mapping[str, Any]

    @property
    def amount(self) -> float:
        """What the last network has of it."""
        name, _ = self.target
        return float(self.final[FIGURES[name]])

    @property
    def dense_amount(self) -> float | None:
        """What the first network has of it; milliseconds where they were measured beside it."""
        name, _ = self.target
        if name == LATENCY:
            return self.final.get(f"dense_{LATENCY}")
        return self.dense.get(FIGURES[name])

    @property
    def is_kept(self) -> bool:
        """Whether that is no more than was asked for."""
        _, asked = self.target
        return self.amount <= asked

    @property
    def top1_drop(self) -> float:
        """Points of top-1 that the last network lost; below 0 where it gained."""
        return float(self.dense["top1"] - self.final["top1"])

    def metrics(self) -> dict[str, Any]:
        """``target reached budget_kept top1_drop``."""
        name, asked = self.target
        return {
            "target": {name: asked},
            "reached": {name: self.amount},
            "budget_kept": self.is_kept,
            "top1_drop": self.top1_drop,
        }

    def table(self) -> str:
        """One line: what the dense network has, what was asked for and reached, and the accuracies."""
        name, asked = self.target
        before = self.dense_amount
        row = {
            "budget": name,
            "dense": "-" if before is None else f"{before:.6g}",
            "asked for": f"{asked:.6g}",
            "reached": f"{self.amount:.6g}",
            "kept": "yes" if self.is_kept else "NO",
            "dense top-1 %": f"{self.dense['top1']:.2f}",
            "top-1 %": f"{self.final['top1']:.2f}",
            "points lost": f"{self.top1_drop:.2f}",
        }
        return text_table([row])

    def files(self, directory: Path, steps: Sequence[Path]) -> str:
        """A line for each file that a user may want, with its bytes.

        Args:
            directory: the pipeline's.
            steps: its steps' directories; some may not be there.
        """
        paths = [directory / CHECKPOINT]
        for step in steps:
            paths += [step / name for name in OF_STEPS]
        rows = []
        for path in paths:
            if path.is_file():
                size = path.stat().st_size
                rows.append({"file": str(path.relative_to(directory)), "bytes": f"{size:,}"})
        return text_table(rows)

    def what_helps(self) -> str:
        """That the budget is missed, by how much, and what to do."""
        name, asked = self.target
        over = 100 * (self.amount / asked - 1)
        lines = [f"budget.{name}={asked:g} is missed: {self.amount:.6g} is reached, {over:.1f} % too much"]
        if name == LATENCY:
            lines += [
                "what helps: more room, as budget.margin=0.1; other engines, as latency.engines=auto for all; and a",
                "machine that does nothing else, for stage=allocate measured another time than stage=latency",
            ]
        else:
            lines += [
                "what helps: more room, as budget.margin=0.03; all steps, for allocated rules hold together; and",
                "masks that are complete before the end: more trainer.epochs, or a lower prune.schedule.end",
            ]
        return "\n  ".join(lines)
