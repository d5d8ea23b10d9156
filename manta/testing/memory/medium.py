"""What the memory transports share: virtual time, chance and faults.

All deliveries lie in one heap and are run, in order of time, in the thread that calls
`step`, `run_until` or `run_while`; there are no others.
"""

from __future__ import annotations

import heapq
import itertools
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float: ...


class VirtualClock:
    """Stands still until the medium moves it. Any clock with `advance` will do instead."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds


@dataclass
class Faults:
    """What goes wrong; may be changed at any time. Times in seconds."""

    delay: tuple[float, float] = (0.0005, 0.0005)  # one way, least and most
    loss: float = 0.0  # share of messages at which the connection breaks
    drop: float = 0.0  # share of messages that vanish, which TCP does not do
    duplicate: float = 0.0  # share of messages that arrive twice, nor this
    reorder: float = 0.0  # share of messages that may be overtaken, nor this
    retry: tuple[float, float] = (0.1, 0.5)  # between two attempts of a dialled link
    silence: float = 5.0  # until a partition, or a frozen peer, is noticed
    unreachable: float = 4.0  # until an attempt into a partition is given up
    notice: float = 0.01  # until the crash of a process is noticed


@dataclass(eq=False)
class Medium:
    """Carries all deliveries, in order of time.

    `clock` may have `advance(seconds)`: then the medium moves time itself,
    else it runs what is due and leaves time to its owner.
    """

    clock: Clock = field(default_factory=VirtualClock)
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    faults: Faults = field(default_factory=Faults)
    trace: Callable[[float, str], None] = field(default=lambda at, text: None, kw_only=True)
    raise_errors: bool = field(default=False, kw_only=True)  # of handlers, to the caller of `step`

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.partitions: dict[frozenset[str], int] = {}  # pairs of public keys, numbered
        self.numbers = itertools.count()
        self.ports = itertools.count(40000)
        self._advance: Callable[[float], None] | None = getattr(self.clock, "advance", None)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []

    def call_later(self, delay: float, call: Callable[[], None]) -> None:
        """Run `call` in `delay` seconds, in order with the deliveries."""
        with self.lock:
            entry = (self.clock.now() + max(0.0, delay), next(self.numbers), call)
            heapq.heappush(self._heap, entry)

    def step(self, until: float | None = None) -> bool:
        """Run the next event, moving time to it; False if there is none (before `until`)."""
        with self.lock:
            if not self._heap:
                return False
            at = self._heap[0][0]
            if (until is not None and at > until) or not self._move_to(at):
                return False
            call = heapq.heappop(self._heap)[2]
        call()
        return True

    def run_until(self, time: float) -> None:
        """Run all that is due until then, and leave the clock at that time."""
        while self.step(time):
            pass
        self._move_to(time)

    def run_for(self, seconds: float) -> None:
        self.run_until(self.clock.now() + seconds)

    def run_while(self, condition: Callable[[], bool], timeout: float = 60.0) -> bool:
        """Run until `condition` is false; False if it still holds after `timeout` seconds."""
        end = self.clock.now() + timeout
        while condition():
            if not self.step(end):
                self._move_to(end)
                return not condition()
        return True

    def _move_to(self, time: float) -> bool:
        ahead = time - self.clock.now()
        if ahead <= 0:
            return True
        if self._advance is None:
            return False
        self._advance(ahead)
        return True

    def log(self, text: str) -> None:
        self.trace(self.clock.now(), text)

    def draw(self, span: tuple[float, float]) -> float:
        low, high = span
        return low if low == high else self.rng.uniform(low, high)

    def chance(self, share: float) -> bool:
        return share > 0 and self.rng.random() < share

    def is_partitioned(self, a: str, b: str) -> bool:
        """Of two public keys."""
        return frozenset((a, b)) in self.partitions
