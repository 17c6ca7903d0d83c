"""Subjects opened, measured in turns and written down as rows."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from micronet_cli.artifact.engines.engine import Opened
from micronet_cli.artifact.engines.peak_memory import peak_memory_bytes
from micronet_cli.latency.rounds import Rounds, Spread, times_faster
from micronet_cli.latency.subjects import DENSE, Subject

log = logging.getLogger(__name__)
Row = dict[str, Any]
Key = tuple[str, str, str]
NOT_ALONE = "pytorch_compiled"  # compiling takes more memory than running


@dataclass
class Measurement:
    """One batch size with one number of threads.

    Attributes:
        subjects: all that there are; those that cannot be opened or run are left out with a warning.
        images: ``[N, C, H, W]``, float32.
        threads: that each of them computes with.
        clock: tells seconds.
        failed: subjects that were left out.
        memory: subject -> bytes of its own process at its peak.
    """

    subjects: Sequence[Subject]
    images: np.ndarray
    threads: int
    clock: Callable[[], float] = time.perf_counter
    failed: set[Key] = field(default_factory=set)
    memory: dict[Key, int | None] = field(default_factory=dict)
    _rounds: Rounds | None = None

    def prepare(self) -> None:
        """Open all and run each once, which compiles what is to be compiled; find the peaks of memory."""
        opened = self._opened()
        calls = {}
        for subject in self._with_bar("first run", [each for each in self.subjects if each.key in opened]):
            call = partial(opened[subject.key].run, self.images)
            try:
                call()
            except Exception as error:  # an engine's own, of many kinds
                self._leave_out(subject, error)
                continue
            calls[subject.key] = call
        self._rounds = Rounds(calls, self.clock)

    def find_peaks(self) -> None:
        """Fill ``memory``."""
        measured = [each for each in self.subjects if each.key not in self.failed and each.engine.name != NOT_ALONE]
        for subject in self._with_bar("memory", measured):
            peak = peak_memory_bytes(subject.engine, subject.source, self.threads, self.images.shape)
            self.memory[subject.key] = peak

    def run(self, seconds: float) -> None:
        """Measure for so long; after ``prepare``."""
        assert self._rounds is not None
        self._rounds.measure(seconds)

    @property
    def seconds(self) -> dict[Key, list[float]]:
        """Seconds of each round so far, of those subjects that have any."""
        if self._rounds is None:
            return {}
        return {key: values for key, values in self._rounds.seconds.items() if values}

    def rows(self) -> list[Row]:
        """What was measured so far, a row a subject in the order of the subjects; a ratio needs the dense network."""
        seconds = self.seconds
        fastest = fastest_dense(seconds)
        rows = []
        for subject in self.subjects:
            if subject.key in seconds:
                same_engine = (DENSE, subject.engine.name)
                in_engine = [key for key in seconds if (key[0], key[2]) == same_engine]
                row = self._row(subject, seconds[subject.key])
                row["latency_ratio"] = _ratio(seconds, subject.key, fastest)
                row["engine_ratio"] = _ratio(seconds, subject.key, next(iter(in_engine), None))
                rows.append(row)
        return rows

    def _row(self, subject: Subject, seconds: list[float]) -> Row:
        spread = Spread.of([1000 * value for value in seconds])
        batch_size = len(self.images)
        return {
            "network": subject.network,
            "file": subject.file,
            "engine": subject.engine.name,
            "batch_size": batch_size,
            "threads": self.threads,
            "latency_ms": spread.median,
            "first_quartile_ms": spread.first_quartile,
            "third_quartile_ms": spread.third_quartile,
            "images_per_second": 1000 * batch_size / spread.median,
            "latency_ratio": None,
            "engine_ratio": None,
            "rounds": len(seconds),
            "peak_memory_bytes": self.memory.get(subject.key),
            "file_bytes": subject.file_bytes,
        }

    def _opened(self) -> dict[Key, Opened]:
        found = {}
        for subject in self._with_bar("opening", self.subjects):
            try:
                found[subject.key] = subject.engine.open(subject.source, self.threads, self.images.shape)
            except Exception as error:  # an engine's own, of many kinds
                self._leave_out(subject, error)
        return found

    def _leave_out(self, subject: Subject, error: Exception) -> None:
        self.failed.add(subject.key)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        log.warning("%s does not run and is left out: %s", subject, lines[0][:200])

    def _with_bar(self, what: str, items: Sequence[Subject]) -> Any:
        title = f"{what}, batch {len(self.images)}, threads {self.threads}"
        return tqdm(items, desc=title, leave=False, disable=None)


def fastest_dense(seconds: dict[Key, list[float]]) -> Key | None:
    """The dense network in the engine with the lowest median; None where there is none."""
    dense = [key for key in seconds if key[0] == DENSE]
    if not dense:
        return None
    return min(dense, key=lambda key: Spread.of(seconds[key]).median)


def _ratio(seconds: dict[Key, list[float]], key: Key, reference: Key | None) -> float | None:
    """How many times as fast as the reference."""
    if reference is None:
        return None
    return times_faster(seconds[key], seconds[reference])
