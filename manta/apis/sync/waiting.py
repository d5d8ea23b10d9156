"""How synchronous code waits for the session's futures; `aio/waiting.py` is its twin."""

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
