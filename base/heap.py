"""What is freed goes back to the system, so that memory stays flat however long a song is."""

import contextlib
import os
import sys

THRESHOLD = 4 << 20
"""Bytes from which an array gets a mapping of its own. With 1 MB a run takes 8 to 16% less memory, but 10 to 20% more
time, in page faults (``benchmarks/RESULTS.md``)."""
KEPT = 32 << 20
"""Bytes of freed memory that a heap, one a thread, may keep at its end for what is asked next. With glibc's 128 KB,
which no longer grow once the threshold above is set, the arrays of some hundred kilobytes that a filter makes and frees
are new pages each time: a fifth of Open-Unmix's processor time (``benchmarks/RESULTS.md``)."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""From glibc's malloc.h."""
SET_OTHERWISE = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Variables of the environment by which somebody chose another allocator, or settings of this one."""


def give_back() -> bool:
    """Have glibc map arrays of ``THRESHOLD`` bytes and more one by one; whether it does now.

    glibc does so by itself, but with each large array that is freed it raises the threshold, up to 32 MB, and serves
    the next from heaps, one a thread, which fragment and grow as they happen to be used: LarsNet took 805 to 876 MB by
    chance and the length of the song, and takes 724 to 758 MB with this (mallopt(3), M_MMAP_THRESHOLD).

    It holds for the whole process, so the commands call it and ``Separator`` does not. Other C libraries, and
    settings in the environment, are left alone.
    """
    if sys.platform != "linux" or any(name in os.environ for name in SET_OTHERWISE):
        return False
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_M_MMAP_THRESHOLD, THRESHOLD)) and bool(mallopt(_M_TRIM_THRESHOLD, KEPT))
    except (AttributeError, OSError):
        return False


def trim() -> None:
    """Give back what is free now: loading graphs leaves holes as large as the graphs. For glibc; elsewhere nothing."""
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
