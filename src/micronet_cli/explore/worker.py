"""The workers of a shared study: who runs a trial, and whether it still does.

A worker writes a number that changes, its beat, into the study every quarter of ``grace_seconds``. Another one that has
seen the same number for ``grace_seconds``, by its own clock, takes it for dead and takes its trial up again. No two
machines' clocks are compared, and the same means serves a journal and a database: Optuna's own heartbeat is one of
databases alone, and does not see a worker that was killed before its first beat.

What this cannot know: whether a silent worker is dead, stopped, or cut off from the storage. One that comes back finds
its trial taken, and what it found out is dropped. A shared directory whose clients cache for longer than
``grace_seconds`` looks as if its workers were silent.
"""

import fcntl
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from micronet_cli.errors import UserError

log = logging.getLogger(__name__)
BEATS = 4  # in the time after which a worker counts as dead


@dataclass(frozen=True)
class Worker:
    """One directory in which a study's trials are run.

    Attributes:
        id: the directory's own, kept in a file there: a worker that goes on is the same one.
        directory: of its run.
        host: the machine that it runs on now.
        pid: its process now.
    """

    id: str
    directory: str
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)

    def record(self) -> dict[str, Any]:
        """What the study keeps of it, with a beat that differs from the one before."""
        return {"directory": self.directory, "host": self.host, "pid": self.pid, "beat": time.time_ns()}


class Place:
    """A worker's hold on its run's directory, until ``close`` or the end of the process."""

    def __init__(self, file: Path) -> None:
        """Take it.

        Args:
            file: holds the worker's identity; made where it is missing.

        Raises:
            UserError: a living process holds it.
        """
        self._file = file.open("a+")
        try:
            # Not flock: a child that outlives a killed worker would hold on to that one.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            where = str(file.parent)
            raise UserError(f"hydra.run.dir={where!r}: another worker is at work there; give each its own") from None
        except OSError:
            pass  # some network file systems have no locks
        self._file.seek(0)
        known = self._file.read().strip()
        if not known:
            known = uuid.uuid4().hex
            self._file.write(known)
            self._file.flush()
        self.worker = Worker(known, str(file.parent.absolute()))

    def close(self) -> None:
        """Give it back."""
        self._file.close()


class Silence:
    """Which workers were silent for ``grace_seconds``, as far as this process has listened."""

    def __init__(self, grace_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.grace_seconds = grace_seconds
        self._clock = clock
        self._heard: dict[str, tuple[Any, float]] = {}

    def is_silent(self, name: str, beat: Any) -> bool:
        """Note ``beat``; whether it is what it was ``grace_seconds`` ago."""
        now = self._clock()
        last, since = self._heard.get(name, (None, now))
        if name not in self._heard or last != beat:
            self._heard[name] = (beat, now)
            return False
        return now - since >= self.grace_seconds


class Heartbeat:
    """Calls ``beat`` at once and every ``seconds`` from a thread, until the ``with`` block ends."""

    def __init__(self, beat: Callable[[], None], seconds: float) -> None:
        self._beat = beat
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    def __enter__(self) -> None:
        self._beat()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _go_on(self) -> None:
        reached = True
        while not self._stop.wait(self._seconds):
            try:
                self._beat()
            except Exception as error:
                # The storage may come back before the others count this worker as dead.
                if reached:
                    log.warning("search.storage: not reached (%s); trying again", type(error).__name__)
                reached = False
            else:
                reached = True
