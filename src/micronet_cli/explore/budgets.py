"""Budgets."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """A target."""

    score: float | None = None
