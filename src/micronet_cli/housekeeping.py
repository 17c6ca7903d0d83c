"""What Python does about memory at the start and the end of a command, and what of it a command can do without.

Importing torch and what builds on it makes half a million objects, all of which stay. The garbage collector goes
through them again and again meanwhile, and once more at the end, to free them one by one: almost half the processor
time of a short command.
"""

import atexit
import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class _Process:
    """This one: whether its collector rests, whether what was there at the first start is frozen, how it ends."""

    rests = False
    has_frozen = False
    status: int | None = None


@contextmanager
def collected_later() -> Iterator[None]:
    """In this block nothing is collected until ``collect_from_here``; a collector that is off stays off."""
    _Process.rests = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        _go_on()


def collect_from_here() -> None:
    """Collect what is made from now on; what is there stays, for a command's imports are there by now."""
    if _Process.rests and not _Process.has_frozen:
        gc.freeze()
        # Where Python frees at the end, extension modules report as leaked what it leaves.
        atexit.register(gc.unfreeze)
        _Process.has_frozen = True  # once, for garbage that is frozen stays too
    _go_on()


def _go_on() -> None:
    if _Process.rests:
        _Process.rests = False
        gc.enable()


def leave_memory_to_the_system() -> None:
    """Have the process end behind its exit handlers, the memory as it is, once ``ends_with`` says how.

    Call it before anything large is imported: handlers run in reverse order, and this one must be the last.
    """
    atexit.register(_end)


def ends_with(status: int) -> None:
    """What the process ends with; without it Python ends as ever, and tells of the error."""
    _Process.status = status


def _end() -> None:
    if _Process.status is None:
        return
    logging.shutdown()  # its own handler is older than this one
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(_Process.status)
