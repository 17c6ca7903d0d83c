"""Threads of PyTorch on a CPU that other processes use too: how they wait, and how many there are."""

import os

# Each says how threads wait: to OpenMP, to GNU's library (PyTorch's on Linux), to LLVM's and Intel's.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
NUMBER = "OMP_NUM_THREADS"


def spin_briefly() -> None:
    """Have a thread that waits for others go to sleep soon; call it before torch is imported, later has no effect.

    By default threads spin while they wait, for milliseconds: where other processes want the same cores, they hold up
    the very threads they wait for. ``benchmarks/busy_machine.py`` shows what it costs and gains. The environment's own
    setting is kept, and processes started from here inherit this one.
    """
    if any(name in os.environ for name in WAITING):
        return
    os.environ["GOMP_SPINCOUNT"] = "10000"  # turns of a loop, by default 300,000
    os.environ["KMP_BLOCKTIME"] = "1"  # milliseconds, by default 200


def share_cores(processes: int) -> None:
    """Have each of so many processes to be started from here use its share of the cores, unless the number is set."""
    os.environ.setdefault(NUMBER, str(max(1, cores() // processes)))


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
