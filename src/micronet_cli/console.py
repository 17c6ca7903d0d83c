"""Standard output whose reader may leave, as ``head`` does: the run goes on, and its log holds what it says."""

import os
import sys
from typing import Any, TextIO


class UnreadOutput:
    """A text stream that writes to nowhere once its reader has left."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """As the stream does, while it is read."""
        try:
            return self.stream.write(text)
        except BrokenPipeError:
            self._write_to_nowhere()
            return len(text)

    def flush(self) -> None:
        """As the stream does, while it is read."""
        try:
            self.stream.flush()
        except BrokenPipeError:
            self._write_to_nowhere()

    def _write_to_nowhere(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)


def go_on_unread() -> None:
    """Let this process's standard output be one whose reader may leave."""
    if sys.stdout is sys.__stdout__ and sys.stdout is not None:
        sys.stdout = UnreadOutput(sys.stdout)
