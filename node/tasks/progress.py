"""How often an attempt's progress is told: the first calls at once, then a few a second. Pure."""

from __future__ import annotations

from manta.protocol.node import Progressed

BURST, PER_SECOND = 20, 4.0


class ProgressGate:
    """Of calls in a loop, the latest of those that were held back is told with the next that is
    not, or with the end of the attempt."""

    def __init__(self) -> None:
        self._tokens = float(BURST)
        self._at = 0.0
        self._held: Progressed | None = None

    def takes(self, told: Progressed, now: float) -> bool:
        """Whether it is told now; otherwise it is held."""
        self._tokens = min(BURST, self._tokens + (now - self._at) * PER_SECOND)
        self._at = now
        if self._tokens < 1:
            self._held = told
            return False
        self._tokens -= 1
        self._held = None
        return True

    def rest(self) -> Progressed | None:
        """What is held, which is no longer."""
        held, self._held = self._held, None
        return held
