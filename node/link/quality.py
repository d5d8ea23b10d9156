"""How good the link to the manager is, as a number from 0 to 1; pure.

    quality = 1 / (1 + round_trip / 0.2)  *  (1 - loss) ** 8  *  throughput / (throughput + 125000)

in seconds, a fraction, and bytes a second; what is unknown counts as good. 50 ms give 0.8 and
300 ms 0.4; 10 % loss gives 0.43; 1 Mbit/s halves it. Over TCP nothing is lost to who reads,
but what had to be sent again comes later by at least TCP's retransmission time-out: an
answer that late counts as lost, like one that does not come at all.
"""

from __future__ import annotations

from collections import deque
from statistics import median

HALF_AT_ROUND_TRIP = 0.2
LOSS_EXPONENT = 8
HALF_AT_THROUGHPUT = 125_000.0
LATE = 0.2
"""Seconds above the shortest round trip; Linux's shortest retransmission time-out."""
ENOUGH = 100
FEWEST = 10
SECONDS = 60.0
"""Measurements that are older no longer count."""


def quality(round_trip: float, loss: float, throughput: float | None = None) -> float:
    """Returns 0 (useless) to 1 for seconds, a fraction and bytes a second (None: unknown)."""
    found = (1 - loss) ** LOSS_EXPONENT / (1 + round_trip / HALF_AT_ROUND_TRIP)
    if throughput is not None:
        found *= throughput / (throughput + HALF_AT_THROUGHPUT)
    return found


class LinkWindow:
    """The latest measurements of one link."""

    def __init__(self) -> None:
        self._trips: deque[tuple[float, float | None]] = deque(maxlen=ENOUGH)
        self._throughput: float | None = None

    def __len__(self) -> int:
        return len(self._trips)

    def asked(self, seconds: float | None, now: float) -> None:
        """A question was answered after `seconds`, or not at all (None)."""
        self._trips.append((now, seconds))

    def moved(self, size: int, seconds: float) -> None:
        """A transfer of `size` bytes took `seconds`."""
        measured = size / max(seconds, 1e-6)
        before = self._throughput
        self._throughput = measured if before is None else (before + measured) / 2

    def forget(self, now: float) -> None:
        """Forget measurements that are too old."""
        while self._trips and self._trips[0][0] < now - SECONDS:
            self._trips.popleft()

    def quality(self) -> float:
        """Returns 0 if no question was answered."""
        answered = [seconds for _, seconds in self._trips if seconds is not None]
        if not answered:
            return 0.0
        limit = min(answered) + LATE
        in_time = [seconds for seconds in answered if seconds <= limit]
        loss = 1 - len(in_time) / len(self._trips)
        return quality(median(in_time), loss, self._throughput)
