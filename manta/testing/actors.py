"""Time, faults and waiting for tests of actors."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from manta.actors import ActorDead, ActorSystem, LocalRef
from manta.actors.mailbox import Mailbox
from manta.actors.refs import Envelope
from manta.actors.signals import Crash
from manta.testing.waiting import PATIENCE


class FakeClock:
    """A Clock that stands still until it is told otherwise."""

    def __init__(self, now: float = 0.0, wall: float = 1_700_000_000.0) -> None:
        self._now = now
        self._wall = wall
        self._lock = threading.Lock()
        self._wakers: list[weakref.WeakMethod[Callable[[], None]]] = []

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._wall

    def real_seconds_until(self, deadline: float) -> float | None:
        return None  # only `advance` brings it nearer

    def subscribe(self, wake: Callable[[], None]) -> None:
        with self._lock:
            self._wakers = [waker for waker in self._wakers if waker() is not None]
            self._wakers.append(weakref.WeakMethod(wake))

    def advance(self, seconds: float) -> None:
        """Let time pass at once: what came due is served in the order of its time, per actor.

        A timer that is set again from its handler fires once; see `run_for`.
        """
        if seconds < 0:
            raise ValueError("Time does not run backwards.")
        with self._lock:
            self._now += seconds
            self._wall += seconds
            wakers = list(self._wakers)
        for waker in wakers:
            wake = waker()
            if wake is not None:
                wake()


class InjectedCrash(RuntimeError):
    """What `crash` raises inside an actor."""


def crash(ref: LocalRef, error: BaseException | None = None) -> None:
    """Raise an exception inside a running actor, before all that waits in its mailbox."""
    error = error or InjectedCrash(f"injected into {ref.address}")
    ref._cell.inbox.put_urgent(Envelope(Crash(error)))


def settle(*systems: ActorSystem, timeout: float = PATIENCE) -> None:
    """Wait until no actor of these systems has anything left to do."""
    deadline = time.monotonic() + timeout
    before: dict[int, int] | None = None
    while True:
        inboxes = _inboxes(systems)
        served = {id(inbox): inbox.served for inbox in inboxes}
        idle = all(inbox.idle for inbox in inboxes)
        # Twice idle with nothing served in between: none handed work to another meanwhile.
        if idle and served == before:
            return
        before = served if idle else None
        if time.monotonic() > deadline:
            busy = [inbox.owner for inbox in inboxes if not inbox.idle]
            raise TimeoutError(f"still busy after {timeout:g} s: {', '.join(busy)}")
        time.sleep(0.0005)


def run_for(seconds: float, *systems: ActorSystem) -> None:
    """Advance the FakeClock of these systems from one due timer to the next."""
    clock = systems[0].clock
    if not isinstance(clock, FakeClock) or any(other.clock is not clock for other in systems):
        raise TypeError("run_for needs systems that share one FakeClock.")
    end = clock.now() + seconds
    while True:
        settle(*systems)
        deadlines = [inbox.next_deadline() for inbox in _inboxes(systems)]
        next_one = min((due for due in deadlines if due is not None), default=end)
        if next_one > end:
            break
        clock.advance(max(0.0, next_one - clock.now()))
        if next_one == end and all(due is None or due > end for due in deadlines):
            break
    clock.advance(end - clock.now())
    settle(*systems)


def wait_for_successor(system: ActorSystem, ref: LocalRef, timeout: float = PATIENCE) -> LocalRef:
    """The next incarnation at the path of `ref`, once there is one."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            found = system.find(ref.address.path)
        except ActorDead:
            found = ref
        if found != ref and found._cell.started:
            return found
        time.sleep(0.001)
    raise TimeoutError(f"{ref.address} had no successor within {timeout:g} s")


def _inboxes(systems: tuple[ActorSystem, ...]) -> list[Mailbox[Any]]:
    inboxes: list[Mailbox[Any]] = []
    for system in systems:
        inboxes += [cell.inbox for cell in system._cells_now()]
        if system.deadlines.running:
            inboxes.append(system.deadlines.inbox)
    return inboxes
