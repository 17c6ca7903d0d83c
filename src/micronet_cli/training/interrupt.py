"""SIGINT and SIGTERM as a request."""

import logging
import signal
import threading
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)


class StopRequest:
    """Inside the block the first SIGINT or SIGTERM sets ``asked``; a second one does what it usually does.

    Args:
        unit: what is finished before the work stops, as the user is told.
    """

    def __init__(self, unit: str = "step") -> None:
        self._unit = unit
        self.asked = False
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        self.before = {}
        # Python lets no other thread set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, _: FrameType | None) -> None:
        self.asked = True
        received = signal.Signals(number)
        log.warning("%s: saving and stopping after this %s", received.name, self._unit)
        signal.signal(received, self.before[received])

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
