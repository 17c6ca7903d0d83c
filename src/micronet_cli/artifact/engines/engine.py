"""What an engine is, and what its own profiler tells of an operation.

The modules of the engines import no more than their engine, and that when a network is opened: ``installed`` costs
nothing, and a process that runs an ONNX file needs no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Operation:
    """An operation of a network, as an engine executes it.

    Attributes:
        name: of the node, by which an exported file names the layer: ``layer1.0.conv1/...``.
        kind: the operator, as the engine calls it.
        milliseconds: of one run, the median.
    """

    name: str
    kind: str
    milliseconds: float


class Opened(Protocol):
    """A network in an engine."""

    def run(self, images: np.ndarray) -> np.ndarray:
        """``images [N, C, H, W]``, float32, normalised for the network -> ``logits [N, classes]``."""
        ...


class Engine(Protocol):
    """A door to an engine.

    Attributes:
        name: what ``latency.engines`` calls it.
        package: what must be installed.
        extra: micronet's extra that installs it; empty where it is always there.
        suffixes: of the files that it opens; an engine without any takes the live network.
    """

    name: str
    package: str
    extra: str
    suffixes: Sequence[str]

    def installed(self) -> bool:
        """Whether it can be used here."""
        ...

    def open(self, source: Any, threads: int, shape: Sequence[int] | None = None) -> Opened:
        """Make a network ready to run.

        Args:
            source: path of a file with one of ``suffixes``, or a network.
            threads: that it computes with.
            shape: of the images, ``[N, C, H, W]``, where all of them have the same: some engines are faster then.
        """
        ...

    def profile(self, source: Any, threads: int, images: np.ndarray, runs: int) -> list[Operation]:
        """What the engine's own profiler says of the network's operations, over so many runs after one to warm up."""
        ...
