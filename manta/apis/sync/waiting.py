"""How synchronous code waits; `aio/waiting.py` has the same functions."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
TICK = 1.0


def outcome(future: Future[T], meanwhile: Callable[[], object] | None = None) -> T:
    """Calls `meanwhile` each TICK seconds.

    It never sleeps for longer: any thread may be the one that takes a signal, and Python runs the
    handler when the main thread wakes up.
    """
    while True:
        try:
            return future.result(TICK)
        except TimeoutError:
            if future.done():
                return future.result()
        if meanwhile is not None:
            meanwhile()


def in_thread(work: Callable[[], T]) -> T:
    return work()


def pause(seconds: float) -> None:
    time.sleep(seconds)
