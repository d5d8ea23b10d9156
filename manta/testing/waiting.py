"""Waiting for what other threads and processes bring about."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds. Far more than anything takes, on a machine that is busy with other work as well: only
what never comes about fails."""
LONGEST_PAUSE = 0.05
"""Seconds between two looks, which follow each other faster at first."""


def wait_until(
    condition: Callable[[], T | None],
    timeout: float = PATIENCE,
    what: Callable[[], object] | None = None,
) -> T:
    """Return the first value of `condition` that is true.

    Raises TimeoutError after `timeout` seconds: it tells the condition, its last value, and what
    `what` returns then.
    """
    deadline, pause = time.monotonic() + timeout, 0.001
    while not (value := condition()):
        if time.monotonic() > deadline:
            told = f"not within {timeout:g} s: {_words(condition)}, which was {value!r}"
            raise TimeoutError(told if what is None else f"{told}: {what()}")
        time.sleep(pause)
        pause = min(1.2 * pause, LONGEST_PAUSE)
    return value


def _words(condition: Callable[[], object]) -> str:
    """The condition as it is written where it is passed."""
    try:
        source = inspect.getsource(condition)
    except (OSError, TypeError):
        return repr(condition)
    return " ".join(source.split())[:400]
