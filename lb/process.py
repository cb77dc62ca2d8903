"""What a process that serves for long asks of the system: descriptors, and memory that it may keep."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys

MANY = 1 << 20  # descriptors, where there is no limit

TURN = 0.0005  # seconds; Python's own are 0.005

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def calm_the_collector() -> None:
    """What was built at the start is never garbage, and requests leave no cycles behind: collect seldom.

    With Python's thresholds the collector takes a third of the time of a request, looking for nothing in
    the request records.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def keep_freed_memory() -> None:
    """Tells malloc to keep a few MiB of what is freed: large bodies cost twice as much without it.

    uvloop hands over pieces of up to 256 KiB. glibc gives memory of that size back to the kernel as soon as
    it is freed, and takes page faults to get it anew for the next piece.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # only glibc has it
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)
        mallopt(_M_TRIM_THRESHOLD, 8 << 20)


def take_short_turns() -> None:
    """Lets a thread that computes, such as one that reads a long list of backends, have the interpreter for
    half a millisecond at a time while requests wait. With Python's own five, each of the events that the loop
    has to handle meanwhile waits for so long."""
    sys.setswitchinterval(TURN)


def allow_many_files() -> int:
    """Raises the limit of open files as far as we may, and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return MANY if hard == resource.RLIM_INFINITY else hard
