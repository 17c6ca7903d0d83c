"""Memory for large tensors on the CPU: the size of its pages, and how long it is kept."""

import ctypes
import mmap
import os
import sys
from pathlib import Path

# glibc's malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
THRESHOLD = (1 << 31) - 1  # the largest int
STATM = Path("/proc/self/statm")


def use_huge_pages() -> None:
    """Have PyTorch ask Linux for pages of 2 MiB for tensors that fill one.

    Call it before the first tensor is made: later calls have no effect. The environment's own setting is kept.
    A training step goes through hundreds of megabytes; with pages of 4 KiB, finding them takes a part of its time.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of any size for the next request; True where it agreed.

    By default blocks of megabytes go back to the system when freed and are zeroed page by page when they
    come back: a network on the CPU pays for that at every activation, many times what an element-wise operation takes.
    Peak memory does not change.
    """
    return _set(M_MMAP_THRESHOLD, THRESHOLD) and _set(M_TRIM_THRESHOLD, THRESHOLD)


def share_freed_memory() -> bool:
    """Let threads to come use what others have freed; True where glibc agreed.

    By default many of them have a heap of their own, which keeps what it has grown to.
    """
    return _set(M_ARENA_MAX, 1)


def give_back_freed_memory() -> bool:
    """Give freed blocks back to the system, those too that lie between blocks in use; True where glibc did."""
    library = _c_library()
    if library is None:
        return False
    return bool(library.malloc_trim(0))


class BoundedGrowth:
    """Keeps freed memory until the process has grown too far.

    Where blocks of many sizes come and go between some that stay, more and more is kept in gaps that fit no request.

    Args:
        most_bytes: that the process may grow by until freed memory is given back.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._before = resident_bytes()

    def check(self) -> None:
        """Give back what is free, if it is time."""
        if resident_bytes() - self._before > self._most_bytes:
            give_back_freed_memory()
            self._before = resident_bytes()


def resident_bytes() -> int:
    """The memory that the process takes; 0 where the system does not tell."""
    try:
        pages = STATM.read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * mmap.PAGESIZE


def _set(option: int, value: int) -> bool:
    library = _c_library()
    if library is None:
        return False
    return bool(library.mallopt(option, value))


def _c_library() -> ctypes.CDLL | None:
    """The process's own, where it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(None)
    except OSError:
        return None
    is_glibc = hasattr(library, "mallopt") and hasattr(library, "malloc_trim")
    return library if is_glibc else None
