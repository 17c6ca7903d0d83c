"""OpenVINO: an ONNX file, or one of its own, on the CPU."""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from micronet_cli.artifact.engines.engine import Operation

if TYPE_CHECKING:
    from types import ModuleType

    from openvino import CompiledModel

DEVICE = "CPU"
TELEMETRY = "openvino_telemetry"


class OpenVino:
    """The door to OpenVINO."""

    name = "openvino"
    package = "openvino"
    extra = "openvino"
    suffixes: Sequence[str] = (".onnx", ".xml")

    def installed(self) -> bool:
        """Whether it can be used here."""
        return find_spec(self.package) is not None

    def open(self, source: Path, threads: int, shape: Sequence[int] | None = None) -> OpenedModel:
        """As ``Engine.open``; with ``shape`` the file's input gets it before it is compiled."""
        return OpenedModel(compiled(source, threads, shape))

    def profile(self, source: Path, threads: int, images: np.ndarray, runs: int) -> list[Operation]:
        """As ``Engine.profile``; the names are those of the file's nodes, as far as fusing leaves them."""
        opened = OpenedModel(compiled(source, threads, images.shape, {"PERF_COUNT": True}))
        opened.run(images)
        durations: dict[tuple[str, str], list[float]] = defaultdict(list)
        for _ in range(runs):
            opened.run(images)
            for node in opened.request.profiling_info:
                durations[node.node_name, node.node_type].append(node.real_time.total_seconds())
        found = []
        for (name, kind), seconds in durations.items():
            median = statistics.median(seconds)
            if median > 0:  # what was fused away takes no time
                found.append(Operation(name, kind, median * 1000))
        return found


class OpenedModel:
    """A file with one input and, as its first output, logits.

    Attributes:
        compiled: OpenVINO's own compiled model, for more outputs than that.
        request: what its runs share.
    """

    def __init__(self, compiled: CompiledModel) -> None:
        self.compiled = compiled
        self.request = compiled.create_infer_request()

    def run(self, images: np.ndarray) -> np.ndarray:
        """As ``Opened.run``."""
        self.request.infer({0: images}, share_inputs=True)
        return np.array(self.request.get_output_tensor(0).data)


def compiled(
    path: Path, threads: int, shape: Sequence[int] | None = None, more: dict[str, Any] | None = None
) -> CompiledModel:
    """A file's network on the CPU, with float32 where it has no integers: bfloat16 would be another network."""
    openvino = without_telemetry()
    model = openvino.Core().read_model(str(path))
    if shape is not None:
        model.reshape({0: list(shape)})
    options: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    return openvino.compile_model(model, DEVICE, options | (more or {}))


def without_telemetry() -> ModuleType:
    """The package ``openvino``, imported such that it reports to nobody; every import goes through here.

    Its telemetry, part of every installation, sends the import to Google Analytics without having asked, from a process
    that one of its threads forks off this one. That process is a copy with our open files, our signal handlers and the
    locks that other threads held. Where the network does not answer, it delays the end of ours by seconds, and it
    prints the traceback of our own ``KeyboardInterrupt`` when it is stopped.
    """
    # Python's sign of a module that cannot be imported: OpenVINO then takes its own stub. A user's import of it stays.
    sys.modules.setdefault(TELEMETRY, None)  # type: ignore[arg-type]
    import openvino

    return openvino
