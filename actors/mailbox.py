"""The mailbox of an actor: urgent messages first, then due timers, then the others in order.

Putting never blocks: when the mailbox is full or closed, the sender gets an
error. Timers are kept in a heap and served by the thread that waits for
messages, so they need no thread of their own. That thread sleeps on a bare
lock, which costs a third of a Condition.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from manta.actors.clock import Clock, SystemClock
from manta.actors.errors import ActorDead, MailboxFull

T = TypeVar("T")

BOUND = 10_000
"""Messages that may wait, unless a MailboxPolicy says otherwise."""


class MailboxPolicy(msgspec.Struct, frozen=True):
    """How many messages may wait. The sender of one more gets MailboxFull."""

    bound: int = BOUND

    def __post_init__(self) -> None:
        if self.bound < 1:
            raise ValueError(f"A mailbox holds at least one message, not {self.bound}.")


class Timer(Generic[T]):
    """A message that is due later; `cancel` prevents it unless it was handled before."""

    __slots__ = ("_mailbox", "cancelled", "deadline", "item")

    def __init__(self, mailbox: Mailbox[T], deadline: float, item: T) -> None:
        self._mailbox = mailbox
        self.deadline = deadline
        self.item: T | None = item
        self.cancelled = False

    def cancel(self) -> None:
        self._mailbox.cancel(self)


class Mailbox(Generic[T]):
    """Two lanes and a heap of timers. Any thread may put; one thread gets."""

    def __init__(self, clock: Clock | None = None, bound: int = BOUND) -> None:
        self._lock = threading.Lock()
        self._wakeup = threading.Lock()
        self._wakeup.acquire()
        self._waiting = False
        self._urgent: deque[T] = deque()
        self._normal: deque[T] = deque()
        self._timers: list[tuple[float, int, Timer[T]]] = []
        self._cancelled = 0
        self._sequence = itertools.count()
        self._timer_served = False
        self._closed: str | None = None
        self.served = 0
        self.owner = "actor"
        self._clock: Clock = SystemClock()
        self.configure(clock or self._clock, bound)

    def configure(self, clock: Clock, bound: int, owner: str = "actor") -> None:
        """Sets what is not known yet when the mailbox is made."""
        if clock is not self._clock:
            self._clock = clock
            clock.subscribe(self.wake)
        self.bound = bound
        self.owner = owner

    def put(self, item: T) -> None:
        """Puts into the normal lane; raises MailboxFull or ActorDead."""
        with self._lock:
            if self._closed is not None:
                raise ActorDead(self._closed)
            if len(self._normal) >= self.bound:
                raise MailboxFull(
                    f"{self.owner} has {self.bound} messages waiting, its mailbox's bound: "
                    "slow down, or raise the bound in its MailboxPolicy"
                )
            self._normal.append(item)
            if self._waiting:
                self._waiting = False
                self._wakeup.release()

    def put_unbounded(self, item: T) -> None:
        """Puts into the normal lane even when it is full; raises ActorDead.

        For what must arrive, and is bounded elsewhere.
        """
        self._put(self._normal, item)

    def put_urgent(self, item: T) -> None:
        """Puts into the urgent lane, which is served first and has no bound; raises ActorDead."""
        self._put(self._urgent, item)

    def _put(self, lane: deque[T], item: T) -> None:
        with self._lock:
            if self._closed is not None:
                raise ActorDead(self._closed)
            lane.append(item)
            self._rouse()

    def schedule(self, deadline: float, item: T) -> Timer[T]:
        """Serves `item` once the clock shows `deadline`; raises ActorDead."""
        timer = Timer(self, deadline, item)
        with self._lock:
            if self._closed is not None:
                raise ActorDead(self._closed)
            first = not self._timers or deadline < self._timers[0][0]
            heapq.heappush(self._timers, (deadline, next(self._sequence), timer))
            if first:
                self._rouse()
        return timer

    def cancel(self, timer: Timer[T]) -> None:
        with self._lock:
            if timer.cancelled:
                return
            timer.cancelled = True
            # The timer may stay in the heap for long; what it refers to goes, outside the lock.
            item, timer.item = timer.item, None
            self._cancelled += 1
            if self._cancelled > 64 and self._cancelled * 2 > len(self._timers):
                self._timers = [entry for entry in self._timers if not entry[2].cancelled]
                heapq.heapify(self._timers)
                self._cancelled = 0
        del item

    def wake(self) -> None:
        """Has the waiting thread look at the clock again."""
        with self._lock:
            self._rouse()

    def _rouse(self) -> None:
        """Wakes the waiting thread; called under the lock."""
        if self._waiting:
            self._waiting = False
            self._wakeup.release()

    def get(self) -> T:
        """Waits for the next item and returns it; raises ActorDead once the mailbox is closed."""
        while True:
            with self._lock:
                found, item, deadline = self._next()
                if found:
                    self.served += 1
                    return item  # type: ignore[return-value]
                if self._closed is not None:
                    raise ActorDead(self._closed)
                self._waiting = True
            seconds = None if deadline is None else self._clock.real_seconds_until(deadline)
            if seconds is None:
                self._wakeup.acquire()
            elif not self._wakeup.acquire(timeout=min(seconds, threading.TIMEOUT_MAX)):
                with self._lock:
                    missed = not self._waiting  # released between our time-out and here
                    self._waiting = False
                if missed:
                    self._wakeup.acquire()

    def _next(self) -> tuple[bool, T | None, float | None]:
        """Returns (found, item, next deadline); called under the lock."""
        if self._urgent:
            return True, self._urgent.popleft(), None
        timers = self._timers
        while timers and timers[0][2].cancelled:
            heapq.heappop(timers)
            self._cancelled -= 1
        # In turns, so that a timer that is always due again does not starve the normal lane.
        turn = timers and not (self._timer_served and self._normal)
        if turn and timers[0][0] <= self._clock.now():
            timer = heapq.heappop(timers)[2]
            timer.cancelled = True
            self._timer_served = True
            return True, timer.item, None
        if self._normal:
            self._timer_served = False
            return True, self._normal.popleft(), None
        return False, None, timers[0][0] if timers else None

    def close(self, sentence: str) -> list[T]:
        """Refuses everything from now on with ActorDead(sentence); returns what was waiting."""
        with self._lock:
            if self._closed is not None:
                return []
            self._closed = sentence
            left = [*self._urgent, *self._normal]
            self._urgent.clear()
            self._normal.clear()
            self._timers.clear()
            self._rouse()
            return left

    def __len__(self) -> int:
        return len(self._urgent) + len(self._normal)

    @property
    def idle(self) -> bool:
        """Whether it is closed, or its thread sleeps until something comes or falls due."""
        with self._lock:
            return self._closed is not None or self._waiting

    def next_deadline(self) -> float | None:
        with self._lock:
            live = [entry[0] for entry in self._timers if not entry[2].cancelled]
            return min(live, default=None)


class Deadlines:
    """Calls short functions at their time by the system's clock, for asks that no thread waits in.

    One thread per system does so; it starts with the first call of `add`.
    """

    def __init__(self, clock: Clock, name: str) -> None:
        self._clock = clock
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.inbox: Mailbox[Callable[[], Any]] = Mailbox(clock)

    def add(self, seconds: float, expire: Callable[[], Any]) -> Timer[Any]:
        """Calls `expire` after `seconds`, unless the timer is cancelled.

        Raises ActorDead once the system has stopped.
        """
        timer = self.inbox.schedule(self._clock.now() + seconds, expire)
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                    thread.start()
                    self._thread = thread  # only now: a signal may raise before, and `close` joins
        return timer

    @property
    def running(self) -> bool:
        return self._thread is not None

    def _serve(self) -> None:
        while True:
            try:
                expire = self.inbox.get()
            except ActorDead:
                return
            expire()

    def close(self) -> None:
        self.inbox.close("the actor system has stopped")
        if self._thread is not None:
            self._thread.join()
