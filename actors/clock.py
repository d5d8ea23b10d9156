"""The clock that an actor system goes by; tests pass one that they control."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Tells the time, and how long a thread must sleep until a later one."""

    def now(self) -> float:
        """Monotonic seconds, for durations and deadlines."""

    def wall(self) -> float:
        """Seconds since the epoch, for people to read."""

    def real_seconds_until(self, deadline: float) -> float | None:
        """How long to sleep until `deadline`; None when only a call of `wake` brings it nearer."""

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Calls `wake`, a bound method that is held weakly, each time the clock jumps."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def real_seconds_until(self, deadline: float) -> float | None:
        return max(0.0, deadline - time.monotonic())

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Does nothing: this clock never jumps."""
