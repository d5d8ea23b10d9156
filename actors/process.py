"""What a process that runs many actors asks of Python and of its C library."""

from __future__ import annotations

import contextlib
import os
import sys

SWITCH_INTERVAL = 0.0005
"""Seconds. With Python's default of 5 ms, one busy thread slows all actors down."""

_M_ARENA_MAX = -8  # mallopt(3)


def prepare_process() -> None:
    """To be called before there are other threads.

    Has a thread that waits for Python's lock get it within `SWITCH_INTERVAL`, and all threads take
    their memory from one arena. glibc gives each of them one of its own, and what is freed in one
    is of no use to the others: the memory of a daemon would grow with whatever each of its actors
    has held at its busiest. Python's lock makes them take turns as it is. The operator's
    `MALLOC_ARENA_MAX` has precedence; other C libraries than glibc have no such arenas.
    """
    sys.setswitchinterval(SWITCH_INTERVAL)
    if "MALLOC_ARENA_MAX" not in os.environ:
        import ctypes

        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
