"""Time as an argument, so that tests own it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """What time it is, and how long a thread must sleep for it to be later."""

    def now(self) -> float:
        """Monotonic seconds: for durations and deadlines."""

    def wall(self) -> float:
        """Seconds since the epoch: for people only."""

    def real_seconds_until(self, deadline: float) -> float | None:
        """How long to wait for `deadline`; None when only a wake-up can bring it nearer."""

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Have `wake` called when time jumps. Bound methods are held weakly."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def real_seconds_until(self, deadline: float) -> float | None:
        return max(0.0, deadline - time.monotonic())

    def subscribe(self, wake: Callable[[], None]) -> None:
        """It never jumps."""
