"""How long to wait before what has failed is begun once more. Pure."""

from __future__ import annotations

FIRST, LONGEST = 1.0, 20.0
"""Seconds of the first pause, and of the longest: each is twice the one before. Attempts wait for a
connection meanwhile, and would not do so for much longer."""
STEADY = 60.0
"""Seconds after which what was begun counts as having gone well: when it ends, the count begins
anew."""


class Pauses:
    """After one failure there is no pause, since whatever was the cause may be gone with it."""

    def __init__(self) -> None:
        self.failures = 0
        """One soon after the other."""
        self.until = 0.0
        """When the pause ends."""
        self._began: float | None = None

    def began(self, now: float) -> None:
        self._began = now

    def failed(self, now: float) -> float:
        """It could not be begun, or has ended: the seconds of the pause that begins."""
        if self._began is not None and now >= self._began + STEADY:
            self.failures = 0
        self._began = None
        self.failures += 1
        pause = 0.0 if self.failures == 1 else min(LONGEST, FIRST * 2.0 ** (self.failures - 2))
        self.until = now + pause
        return pause
