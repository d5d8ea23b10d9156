"""When something is due, of things of which most are over before. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")
_FEW = 64


class Deadlines(Generic[T]):
    """Each step costs the logarithm of how many there are. What is over is left out when its turn
    comes, or when it is most of all."""

    def __init__(self, is_due: Callable[[T, float], bool]) -> None:
        """`is_due`: is that still the deadline of the thing?"""
        self._is_due = is_due
        self._heap: list[tuple[float, int, T]] = []
        self._numbers = count()
        self._most = _FEW

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, at: float, one: T) -> None:
        if len(self._heap) >= self._most:
            self._heap = [entry for entry in self._heap if self._is_due(entry[2], entry[0])]
            heapq.heapify(self._heap)
            self._most = max(_FEW, 2 * len(self._heap))
        heapq.heappush(self._heap, (at, next(self._numbers), one))

    @property
    def due(self) -> float | None:
        """The first deadline."""
        while self._heap:
            at, _, one = self._heap[0]
            if self._is_due(one, at):
                return at
            heapq.heappop(self._heap)
        return None

    def take(self, now: float) -> list[T]:
        """Those that are due by now; each is taken once."""
        found = []
        while (due := self.due) is not None and due <= now:
            found.append(heapq.heappop(self._heap)[2])
        return found
