"""What is to be done later, in order."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Timers:
    """A call is never taken back: who is called looks whether it still matters."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[Any], object], Any]] = []
        self._count = 0

    @property
    def due(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def at(self, due: float, call: Callable[[Any], object], about: Any = None) -> None:
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, call, about))

    def run(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            _, _, call, about = heapq.heappop(self._heap)
            call(about)

    def shift(self, seconds: float) -> None:
        """All of it is due so much later."""
        self._heap = [(due + seconds, *rest) for due, *rest in self._heap]

    def clear(self) -> None:
        self._heap.clear()
