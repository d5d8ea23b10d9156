"""Virtual time: one heap of things to come, one source of chance, one trace."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random

STEPS = 200_000
"""No run needs so many."""


@dataclass(order=True)
class Due:
    at: float
    number: int
    call: Callable = field(compare=False)
    cancelled: bool = field(default=False, compare=False)


class World:
    """All that happens, happens in `run`, one call after another."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.steps = 0
        self.trace: list[str] = []
        self.after_each: list[Callable] = []
        self._heap: list[Due] = []
        self._count = 0

    def after(self, delay: float, call: Callable, *args) -> Due:
        self._count += 1
        due = Due(self.now + delay, self._count, lambda: call(*args))
        heapq.heappush(self._heap, due)
        return due

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        while self._heap and self._heap[0].at <= until and not done():
            self.steps += 1
            assert self.steps < STEPS, "time stands still"
            due = heapq.heappop(self._heap)
            if due.cancelled:
                continue
            self.now = max(self.now, due.at)
            due.call()
            for check in self.after_each:
                check()
        self.now = max(self.now, until) if not done() else self.now

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def between(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)

    def note(self, who: str, what: object) -> None:
        self.trace.append(f"{self.now:10.4f} {who:8} {what}")

    def digest(self) -> str:
        return blake2b("\n".join(self.trace).encode(), digest_size=16).hexdigest()
