"""``trainer.profile=true``: a torch profiler trace of a few steps, and the top costs by name."""

import logging
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)


class StepProfiler:
    """Profiles optimiser steps 3 to 7 after its making.

    Args:
        path: the Chrome trace (chrome://tracing, Perfetto); None: profile nothing.
    """

    FIRST, LAST, TOP = 2, 7, 10

    def __init__(self, path: Path | None) -> None:
        self.path, self.done = path, 0
        self.profiler: Any = None

    def step(self) -> None:
        """An optimiser step ended."""
        self.done += 1
        if self.path is not None and self.done == self.FIRST:
            self.profiler = torch.profiler.profile()
            self.profiler.start()
        elif self.profiler is not None and self.done == self.LAST:
            self.finish()

    def finish(self) -> None:
        """Write the trace and name the top costs, where a profile is under way."""
        if self.profiler is None:
            return
        self.profiler.stop()
        self.path.parent.mkdir(parents=True, exist_ok=True)  # type: ignore[union-attr]
        self.profiler.export_chrome_trace(str(self.path))
        key = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        events = sorted(self.profiler.key_averages(), key=lambda event: -getattr(event, key))
        total = sum(getattr(event, key) for event in events) or 1
        top = (f"  {100 * getattr(event, key) / total:5.1f} %  {event.key}" for event in events[: self.TOP])
        log.info("profile of %d steps in %s; top costs:\n%s", self.done - self.FIRST, self.path, "\n".join(top))
        self.profiler = None
