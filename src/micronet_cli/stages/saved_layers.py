"""The finished layers of post-training in a run's directory."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from micronet_cli import checkpoint
from micronet_cli.compression.quantization.layer_by_layer import LayerByLayer
from micronet_cli.errors import UserError
from micronet_cli.runs.directory import Run

log = logging.getLogger(__name__)
SAVED_EVERY = 20  # times what saving takes


class SavedLayers:
    """The layers that are finished, in the run's directory: what a resumed run goes on from.

    Saving takes at most a small part of the time.

    Attributes:
        first_step: lines of history.jsonl that earlier rounds have written.
    """

    def __init__(self, run: Run, work: LayerByLayer, round_state: Mapping[str, Any]) -> None:
        """Of a round of post-training: what decides it beside the layers, with its number as ``round``."""
        self.first_step = round_state["round"] * len(work.names)
        self._run = run
        self._work = work
        self._round_state = round_state
        self._due = 0.0

    def save(self, always: bool = False) -> None:
        """Write them, unless it was done a moment ago."""
        started = time.perf_counter()
        is_last = self._work.done == len(self._work.names)
        if started < self._due and not always and not is_last:
            return
        checkpoint.save_state(self._run.claim(self._run.state), self._work.state() | {"rescue": self._round_state})
        ended = time.perf_counter()
        self._due = ended + (ended - started) * SAVED_EVERY

    def restore(self) -> None:
        """Go back to them, where the run resumes and there are any.

        Raises:
            UserError: the file is damaged, or of another network.
        """
        if not self._run.resume or not self._run.state.is_file():
            return
        path = self._run.state
        state = checkpoint.load_state(path)
        if state.get("rescue", self._round_state) != self._round_state:
            return  # of an earlier round
        try:
            self._work.restore(state)
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"resume=true: the state in {str(path)!r} is of another network ({reason}); "
                "use the run's own config, or leave resume out to start afresh"
            ) from None
        done = self._work.done
        self._run.rewind_history(lambda line: line["step"] <= self.first_step + done)
        log.info("%d of %d layers are done", done, len(self._work.names))
