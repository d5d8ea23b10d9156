"""How often a known key broke the protocol of late. Pure: time is an argument."""

from __future__ import annotations

from collections import deque


class Offences:
    """Counts by key; a key that did it `most` times within `period` seconds did it too often."""

    def __init__(self, most: int = 5, period: float = 60.0) -> None:
        self._most = most
        self._period = period
        self._times: dict[str, deque[float]] = {}

    def note(self, key: str, now: float) -> None:
        self._times.setdefault(key, deque(maxlen=self._most)).append(now)

    def too_many(self, key: str, now: float) -> bool:
        times = self._times.get(key)
        if times is None:
            return False
        if now - times[-1] >= self._period:
            self.forget(key)
            return False
        return len(times) == self._most and now - times[0] < self._period

    def forget(self, key: str) -> None:
        self._times.pop(key, None)
