"""What a command costs: the processor time and the memory of its process and of those that it waited for."""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class CommandFailed(Exception):
    """The command ended with an error; the message is the last line that it wrote."""


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        processor_seconds: user and system time.
        peak_mb: resident memory of the largest of its processes, in MiB.
        wall_seconds: from start to end.
    """

    processor_seconds: float
    peak_mb: float
    wall_seconds: float


def measured(command: Sequence[str], log: Path, **variables: str) -> Cost:
    """Run it on one thread and see what it took.

    The kernel counts what the parent held when it started the command as the command's own. So whoever measures has to
    be small: no torch in this process.

    Args:
        command: the program and its arguments.
        log: gets what it writes.
        variables: of its environment, beside this process's.

    Raises:
        CommandFailed: it did not end with 0.
    """
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    environment = {**os.environ, **threads, **variables}
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise CommandFailed(_last_line(log) or f"ended with {process.returncode}")
    return Cost(
        processor_seconds=usage.ru_utime + usage.ru_stime,
        peak_mb=usage.ru_maxrss / 1024,  # Linux counts in KiB
        wall_seconds=time.perf_counter() - started,
    )


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    written = [line.strip() for line in lines if line.strip()]
    return written[-1] if written else ""
