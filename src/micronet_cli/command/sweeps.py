"""A sweep's bookkeeping: a record a job, written in whatever process a launcher runs it in, and their summary.

Hydra's launchers differ in where jobs run and in what becomes of a failure: none starts the batches after one. So a job
of a sweep raises nothing but KeyboardInterrupt, and its end is read from its record, ``<sweep>/.jobs/<number>.json``.
"""

import json
import logging
import math
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from micronet_cli.errors import Interrupted, JobsFailed, UserError
from micronet_cli.runs.directory import write_bytes
from micronet_cli.runs.outcomes import Outcome, raise_for_failed, relative, table, write_summary
from micronet_cli.strict_json import json_text
from micronet_cli.threads import share_cores

log = logging.getLogger(__name__)
RECORDS = ".jobs"
# Launchers that start all jobs of a sweep on this machine, each with all of its cores.
ALL_AT_ONCE = {"hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"}


class Sweep(Callback):
    """One sweep, known to the process that launches it and to those that run its jobs; nothing in a single run.

    Attributes:
        current: the sweep that this process launches or belongs to.
        identity: tells its records from those of an earlier sweep in the same directory.
        directory: where the jobs' directories and the summary lie.
        resume: records of an earlier sweep count.
        outlived: jobs go on when the launching process ends.
    """

    current: ClassVar["Sweep | None"] = None
    identity = ""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Hydra has composed the sweep's config and has launched nothing yet."""
        self.identity = uuid.uuid4().hex
        self.directory = Path(config.hydra.sweep.dir).resolve()
        self.resume = bool(config.get("resume"))
        launcher = config.hydra.launcher._target_
        self.outlived = "Slurm" in launcher
        if launcher in ALL_AT_ONCE:
            share_cores(number_of_jobs(config))
        Sweep.current = self
        print(f"sweep: {self.directory}")

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """In the process that runs the job, which got a copy of this object."""
        Sweep.current = self if self.identity else None

    def run(self, outcome: Outcome, work: Callable[[bool], dict[str, Any]]) -> float | None:
        """Do a job's ``work``; its top1 on val, or that of the only split it was measured on; NaN where it failed.

        ``work`` gets whether to go on with what an earlier attempt left: a queue that took the machine away starts the
        job again.

        Raises:
            KeyboardInterrupt: the sweep is to stop.
        """
        directory = Path(outcome.directory)
        outcome.directory = relative(directory, self.directory)
        again = self._record(outcome.number).get("sweep") == self.identity
        self._write(outcome)
        try:
            outcome.attempt(lambda: work(again), directory)
        except Interrupted:
            raise KeyboardInterrupt from None  # Hydra would go on to the next job after any other exception
        finally:
            self._write(outcome)
            with suppress(OSError):  # several may write at a time; the last word is the launching process's
                self.summarise()
        if outcome.status == "failed":
            log.error("job %d failed: %s", outcome.number, outcome.reason)
            return math.nan
        # A sweeper that optimises by it must not see what is reported.
        return outcome.metrics.get("val_top1", outcome.metrics.get("top1"))

    def summarise(self) -> list[Outcome]:
        """Write the summary; the jobs that have begun, by number."""
        found = []
        for path in (self.directory / RECORDS).glob("*.json"):
            record = json.loads(path.read_text())
            if record.pop("sweep") == self.identity or self.resume:
                found.append(Outcome(**record))
        found.sort(key=lambda outcome: outcome.number)
        if found:
            write_summary(self.directory, [outcome.row() for outcome in found])
        return found

    def close(self) -> list[Outcome]:
        """The launching process's last word: jobs that died with it are interrupted; prints and writes the summary."""
        for outcome in self.summarise():
            if outcome.status == "running" and not self.outlived:
                outcome.status, outcome.reason = "interrupted", "its process ended"
                self._write(outcome)
        outcomes = self.summarise()
        if outcomes:
            print(f"\n{table(outcomes)}\n\nsweep: {self.directory}; summary: {self.directory / 'summary.csv'}")
        return outcomes

    def _record(self, number: int) -> dict[str, Any]:
        path = self.directory / RECORDS / f"{number}.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def _write(self, outcome: Outcome) -> None:
        record = asdict(outcome) | {"sweep": self.identity}
        path = self.directory / RECORDS / f"{outcome.number}.json"
        write_bytes(path, json_text(record).encode())


@contextmanager
def reported() -> Iterator[None]:
    """Hydra runs in this block; where it sweeps, the summary is written and printed however the block ends.

    Raises:
        JobsFailed: jobs failed, or the launcher did.
        Interrupted: SIGINT or SIGTERM came.
    """
    Sweep.current = None
    try:
        yield
    except (Interrupted, KeyboardInterrupt):
        if Sweep.current is None:
            raise
        Sweep.current.close()
        more = "; jobs that Slurm holds go on, and add themselves to the summary" if Sweep.current.outlived else ""
        raise Interrupted(f"interrupted{more}; {_go_on(Sweep.current)}") from None
    except Exception as error:
        if Sweep.current is not None:
            Sweep.current.close()
            if not (isinstance(error, UserError) or type(error).__module__.startswith(("hydra.", "omegaconf."))):
                first = str(error).strip().partition("\n")[0]
                lines = [f"{type(error).__name__}: {first}", _go_on(Sweep.current)]
                raise JobsFailed("the launcher lost a job:", lines, exit_code=1) from error
        raise
    if Sweep.current is not None:
        raise_for_failed(Sweep.current.close(), "job")


def number_of_jobs(config: DictConfig) -> int:
    """The jobs of the sweep that Hydra is to launch with this config: one of every combination of values."""
    fixed = config.hydra.sweeper.get("params") or {}
    texts = [f"{key}={value}" for key, value in fixed.items()]
    overrides = OverridesParser.create().parse_overrides([*texts, *config.hydra.overrides.task])
    number = 1
    for override in overrides:
        if override.is_sweep_override():
            number *= len(list(override.sweep_string_iterator()))
    return number


def _go_on(sweep: Sweep) -> str:
    return f"go on with the same command, resume=true and hydra.sweep.dir={sweep.directory}"
