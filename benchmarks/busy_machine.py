"""What threads cost that spin while they wait, on an idle machine and beside busy processes.

    python benchmarks/busy_machine.py [--rounds 3] [--busy 3] [--commands train score]

Each command runs with three settings in turns: OpenMP's own (``GOMP_SPINCOUNT=300000``, the default of GNU's library),
micronet's (nothing is set outside) and no spinning at all (``OMP_WAIT_POLICY=PASSIVE``). A ratio is the median over the
rounds of the seconds to those of OpenMP's own setting in the same round. Busy processes count in a loop, one more of
them than there are cores by default, and more threads are not used than there are cores.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from markdown_page import write_page

from micronet_cli.threads import NUMBER, WAITING, cores

ROOT = Path(__file__).parents[1]
SETTINGS = {
    "spinning": {"GOMP_SPINCOUNT": "300000"},
    "micronet": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}
MICRONET = [sys.executable, "-m", "micronet_cli.command.cli"]
COMMANDS = {
    "train": [*MICRONET, "stage=train", "data=digits", "model=resnet20", "trainer.epochs=2"],
    "ptq": [*MICRONET, "stage=ptq", "data=digits", "model=resnet20", "quantize=w4a4", "ptq.images=128"],
    "score": [*MICRONET, "stage=score", "model=efficientnet_b0"],
    "tests": [sys.executable, "-m", "pytest", "-q", "tests/training/test_trainer.py"],
}
COLUMNS = ("command", "beside", "setting", "seconds", "ratio")


def environment(setting: str) -> dict[str, str]:
    """This process's, with the setting alone to say how threads wait, and all cores to use."""
    kept = {name: value for name, value in os.environ.items() if name not in (*WAITING, NUMBER)}
    return kept | SETTINGS[setting]


def seconds(command: Sequence[str], setting: str) -> float:
    """Wall time of the command as a whole."""
    with tempfile.TemporaryDirectory() as directory:
        arguments = list(command)
        if "pytest" not in arguments:
            arguments.append(f"hydra.run.dir={directory}")
        started = time.perf_counter()
        subprocess.run(arguments, env=environment(setting), cwd=ROOT, check=True, capture_output=True)
        return time.perf_counter() - started


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """So many processes that take a core each, for the time of the block."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def measured(command: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Setting -> seconds in each round; the settings take turns."""
    found: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
    for _ in range(rounds):
        for setting, times in found.items():
            times.append(seconds(command, setting))
    return found


def rows(name: str, beside: str, found: dict[str, list[float]]) -> list[list[str]]:
    """A row a setting, as written."""
    written = []
    for setting, times in found.items():
        ratios = [own / other for own, other in zip(times, found["spinning"], strict=True)]
        row = [name, beside, setting, f"{statistics.median(times):.1f}", f"{statistics.median(ratios):.3f}"]
        print(*row, flush=True)
        written.append(row)
    return written


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=int, default=cores() + 1, help="processes that keep the machine busy")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    given = parser.parse_args()
    table = []
    for name in given.commands:
        for number in (0, given.busy):
            beside = f"{number} busy" if number else "idle"
            with busy_processes(number):
                table += rows(name, beside, measured(COMMANDS[name], given.rounds))
    told = (
        f"torch {version('torch')}, {cores()} cores of {platform.machine()}, median of {given.rounds} rounds; "
        "`benchmarks/busy_machine.py` says what the settings are. Ratio: to the seconds of the spinning threads."
    )
    write_page(given.output, "Threads on a busy machine", told, COLUMNS, table)


if __name__ == "__main__":
    main()
