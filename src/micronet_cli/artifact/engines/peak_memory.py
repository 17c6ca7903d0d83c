"""The peak memory of a process that does nothing but run a network: python -m ... DOOR SOURCE THREADS N,C,H,W."""

import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from micronet_cli.artifact.engines.engine import Engine, Opened
from micronet_cli.dotted_path import locate

log = logging.getLogger(__name__)
STATUS = Path("/proc/self/status")
PEAK = "VmHWM:"
PICKLED = ".pt"
RUNS = 3
TIMEOUT_SECONDS = 600


def peak_memory_bytes(engine: Engine, source: Any, threads: int, shape: Sequence[int]) -> int | None:
    """Bytes that a process needs in which ``engine`` runs ``source``, its libraries included; None where unknown.

    Args:
        engine: its door must be built without arguments.
        source: a file; or a network, which must be one that pickle knows.
        threads: that it computes with.
        shape: of the images, ``[N, C, H, W]``.
    """
    if not STATUS.is_file():
        return None
    kind = type(engine)
    with tempfile.TemporaryDirectory() as directory:
        path = source
        if not isinstance(source, Path):
            path = Path(directory) / f"network{PICKLED}"
            if not _pickle(engine.open(source, threads), path):
                return None
        dimensions = ",".join(map(str, shape))
        door = f"{kind.__module__}.{kind.__qualname__}"
        command = [sys.executable, "-m", __name__, door, str(path), str(threads), dimensions]
        try:
            found = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return None
    if found.returncode:
        log.debug("no peak memory: %s", found.stderr)
        return None
    return int(found.stdout.split()[-1])


def _pickle(opened: Any, path: Path) -> bool:
    """Write an opened network; whether it could be."""
    import torch

    try:
        torch.save(opened, path)
    except Exception as error:  # whatever a network of one's own raises when it is pickled
        log.debug("no peak memory: %s", error)
        return False
    return True


def _opened(door: str, path: Path, threads: int, shape: Sequence[int]) -> Opened:
    if path.suffix == PICKLED:
        import torch

        return torch.load(path, weights_only=False)  # of the process that started this one
    engine: Engine = locate(door, "engine")()
    return engine.open(path, threads, shape)


def main(door: str, path: str, threads: str, dimensions: str) -> None:
    """Run the network and print the peak so far, in bytes."""
    shape = [int(size) for size in dimensions.split(",")]
    opened = _opened(door, Path(path), int(threads), shape)
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    for _ in range(RUNS):
        opened.run(images)
    lines = STATUS.read_text().splitlines()
    (peak,) = [line for line in lines if line.startswith(PEAK)]
    kibibytes = int(peak.split()[1])
    print(kibibytes * 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
