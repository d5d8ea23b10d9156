"""How long a request may be in vain.

A process may stand still, by Ctrl-Z or because the laptop sleeps. Then each wait ends late, and
whatever it waited for seems to be overdue. Such a wait is not counted: it says nothing of the
manager.
"""

from __future__ import annotations

import time
from collections.abc import Callable

SLACK = 1.0
"""Seconds by which a wait may end late on a busy machine."""


class Patience:
    """`left` are the seconds that are left of it."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self.left = seconds
        self._now = now
        self._mark = now()

    def stood_still(self, limit: float) -> bool:
        """Counts a wait of at most `limit` seconds, which began when the last one ended; returns
        whether the process stood still during it."""
        before, self._mark = self._mark, self._now()
        elapsed = self._mark - before
        if elapsed > limit + SLACK:
            return True
        self.left -= elapsed
        return False
