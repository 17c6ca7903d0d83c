"""SIGINT and SIGTERM as a request."""

import logging
import signal
import threading
from types import FrameType

log = logging.getLogger(__name__)


class StopRequest:
    """Inside the block the first SIGINT or SIGTERM sets ``asked``; a second one takes its usual course."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "StopRequest":
        main = threading.current_thread() is threading.main_thread()
        self.before = {n: signal.signal(n, self._ask) for n in (signal.SIGINT, signal.SIGTERM) if main}
        return self

    def _ask(self, number: int, _: FrameType | None) -> None:
        self.asked = True
        log.warning("%s: saving and stopping after this step", signal.Signals(number).name)
        signal.signal(number, self.before[signal.Signals(number)])

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
