"""onnxruntime: an ONNX file on the CPU."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from micronet_cli.artifact.engines.engine import Operation

if TYPE_CHECKING:
    from onnx import NodeProto
    from onnxruntime import InferenceSession, SessionOptions

ERRORS_ONLY = 3
NODE_SUFFIX = "_kernel_time"
BLOCKED_SUFFIX = "_nchwc"


class OnnxRuntime:
    """The door to onnxruntime."""

    name = "onnxruntime"
    package = "onnxruntime"
    extra = "export"
    suffixes: Sequence[str] = (".onnx",)

    def installed(self) -> bool:
        """Whether it can be used here."""
        return find_spec(self.package) is not None

    def open(self, source: Path, threads: int, shape: Sequence[int] | None = None, fused: bool = True) -> OpenedSession:
        """As ``Engine.open``; without ``fused`` see ``session``."""
        return OpenedSession(session(source, threads, fused))

    def profile(self, source: Path, threads: int, images: np.ndarray, runs: int) -> list[Operation]:
        """As ``Engine.profile``; the names are those of the file's nodes."""
        import onnx

        graph = onnx.load(source, load_external_data=False).graph
        makers = {name: node for node in graph.node for name in node.output}
        options = session_options(threads)
        options.enable_profiling = True
        with tempfile.TemporaryDirectory() as directory:
            options.profile_file_prefix = str(Path(directory) / "profile")
            opened = OpenedSession(_session(source, options))
            for _ in range(1 + runs):
                opened.run(images)
            report = Path(opened.session.end_profiling())
            events = json.loads(report.read_text())
        return _operations(events, makers)


class OpenedSession:
    """An ONNX file with one input and, as its first output, logits.

    Attributes:
        session: onnxruntime's own, for more outputs than that.
    """

    def __init__(self, session: InferenceSession) -> None:
        self.session = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name

    def run(self, images: np.ndarray) -> np.ndarray:
        """As ``Opened.run``."""
        (logits,) = self.session.run([self._output], {self._input: images})
        return logits


def session(path: Path, threads: int = 1, fused: bool = True) -> InferenceSession:
    """A session on the CPU; without ``fused`` every QuantizeLinear and DequantizeLinear is computed as it stands."""
    options = session_options(threads)
    if not fused:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return _session(path, options)


def session_options(threads: int) -> SessionOptions:
    """Options of a session that shares the machine: between runs its threads sleep, so that they take no one's time."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = ERRORS_ONLY
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _session(path: Path, options: SessionOptions) -> InferenceSession:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _operations(events: Iterable[Mapping[str, Any]], makers: Mapping[str, NodeProto]) -> list[Operation]:
    """The nodes of a profile, in the order of their first run; the first run of each, which warms up, is left out."""
    durations: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        name = event["name"]
        if event.get("cat") != "Node" or not name.endswith(NODE_SUFFIX):
            continue
        kind = event["args"]["op_name"]
        durations[name.removesuffix(NODE_SUFFIX), kind].append(event["dur"])
    found = []
    for (name, kind), microseconds in durations.items():
        median = statistics.median(microseconds[1:])
        found.append(Operation(_name_in_file(name, kind, makers), kind, median / 1000))
    return found


def _name_in_file(name: str, kind: str, makers: Mapping[str, NodeProto]) -> str:
    """A blocked kernel is called after the tensor that it makes: the last of the nodes that it is fused of."""
    node = makers.get(name.removesuffix(BLOCKED_SUFFIX))
    while node is not None and node.op_type != kind:
        before = [makers[tensor] for tensor in node.input if tensor in makers]
        of_the_kind = [maker for maker in before if maker.op_type == kind]
        node = next(iter(of_the_kind or before), None)
    return name if node is None else node.name
