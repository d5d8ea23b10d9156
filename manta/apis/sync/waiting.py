"""How synchronous code waits; `aio/waiting.py` has the same functions."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")
TICK = 1.0


def outcome(future: Future[T], meanwhile: Callable[[], object] | None = None) -> T:
    """Calls `meanwhile` each TICK seconds."""
    while meanwhile is not None and not wait([future], TICK).done:
        meanwhile()
    return future.result()


def in_thread(work: Callable[[], T]) -> T:
    return work()


def pause(seconds: float) -> None:
    time.sleep(seconds)
