"""Memory for large tensors on the CPU: whose pages, and for how long."""

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
THRESHOLD = (1 << 31) - 1


def use_huge_pages() -> None:
    """Have PyTorch ask Linux for pages of 2 MiB for tensors that fill one; before the first tensor, or in vain.

    A training step goes through hundreds of megabytes; with pages of 4 KiB, finding them takes a part of its time.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of any size for the next request; True where it agreed.

    By default blocks of megabytes go back to the system when freed and come back a zeroed page after the other: a
    training step on the CPU pays for that at every activation. Peak memory does not change; it is given back at exit.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, THRESHOLD)) and bool(mallopt(M_TRIM_THRESHOLD, THRESHOLD))
