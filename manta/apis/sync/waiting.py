"""How synchronous code waits; `aio/waiting.py` has the same functions."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def outcome(future: Future[T]) -> T:
    return future.result()


def in_thread(work: Callable[[], T]) -> T:
    return work()


def pause(seconds: float) -> None:
    time.sleep(seconds)
