"""``trainer.profile=true``: a torch profiler trace of a few steps, and the top costs by name."""

import logging
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)


class StepProfiler:
    """Profiles optimiser steps 3 to 7 after its making.

    Args:
        path: the Chrome trace (chrome://tracing, Perfetto); None: profile nothing.
    """

    FIRST = 2  # the profile starts when so many steps are done
    LAST = 7
    TOP = 10  # costs that are named

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.done = 0
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
        log.info("profile of %d steps in %s; top costs:\n%s", self.done - self.FIRST, self.path, self.top_costs())
        self.profiler = None

    def top_costs(self) -> str:
        """The operations that took longest, a line each: percent of the time of all, and the name."""
        time_of = attrgetter("self_cpu_time_total")
        if torch.cuda.is_available():
            time_of = attrgetter("self_device_time_total")
        times = {event.key: time_of(event) for event in self.profiler.key_averages()}
        total = sum(times.values()) or 1
        longest_first = sorted(times, key=lambda name: times[name], reverse=True)
        lines = []
        for name in longest_first[: self.TOP]:
            percent = 100 * times[name] / total
            lines.append(f"  {percent:5.1f} %  {name}")
        return "\n".join(lines)
