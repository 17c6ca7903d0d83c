"""The ``latency`` config group."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from micronet_cli.artifact.engines.known import check_names

AUTO = "auto"


@dataclass(frozen=True)
class Latency:
    """What is measured.

    Attributes:
        engines: names of engines, one or a list of them; ``auto``: all that are installed.
        batch_sizes: images at a time, each at least 1; the first is the one that metrics.json is about.
        threads: that an engine computes with, each at least 1; the first as above.
        seconds: that one batch size with one number of threads is measured for; slow networks take longer.

    Raises:
        ValueError: an unknown engine, an empty list, or a number that is too small.
    """

    engines: str | list[str] = AUTO
    batch_sizes: list[int] = field(default_factory=lambda: [1])
    threads: list[int] = field(default_factory=lambda: [1])
    seconds: float = 10

    def __post_init__(self) -> None:
        if self.engine_names is not None:
            if not self.engine_names:
                raise ValueError("engines=[]: nothing to measure; give auto, or the names of engines")
            check_names(self.engine_names)
        _check_counts("batch_sizes", self.batch_sizes)
        _check_counts("threads", self.threads)
        if self.seconds <= 0:
            raise ValueError(f"seconds={self.seconds}: must be above 0")

    @property
    def engine_names(self) -> list[str] | None:
        """The engines that are named; None for all that are installed."""
        if self.engines == AUTO:
            return None
        if isinstance(self.engines, str):
            return [self.engines]
        return list(dict.fromkeys(self.engines))


def _check_counts(name: str, counts: Sequence[int]) -> None:
    if not counts:
        raise ValueError(f"{name}=[]: must hold at least one number")
    for count in counts:
        if count < 1:
            raise ValueError(f"{name}={list(counts)}: must be at least 1")
