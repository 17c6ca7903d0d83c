"""Memory for large tensors on the CPU: the size of its pages, and how long it is kept."""

import ctypes
import os
import sys

# glibc's malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
THRESHOLD = (1 << 31) - 1  # the largest int


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


def _set(option: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(option, value))
