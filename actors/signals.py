"""What the runtime tells an actor: to end, and what became of children, monitors and futures."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

import msgspec

from manta.actors.address import Address
from manta.actors.exits import ExitReason
from manta.actors.refs import Ref
from manta.actors.replies import Reply


class Monitor:
    """A request to be told of an actor's end."""

    __slots__ = ("_cancel", "active", "ref")

    def __init__(self, ref: Ref) -> None:
        self.ref = ref
        self.active = True
        self._cancel: Callable[[], None] | None = None

    def cancel(self) -> None:
        """Cancels it: no Down arrives any more, not even one that is in the mailbox already."""
        self.active = False
        if self._cancel is not None:
            self._cancel()


class Down(msgspec.Struct, frozen=True):
    """A monitored actor has ended, or can no longer be seen."""

    ref: Ref
    reason: ExitReason


class ChildStarted(msgspec.Struct, frozen=True):
    """A child has started."""

    address: Address


class ChildExited(msgspec.Struct, frozen=True):
    """A child has ended; told exactly once per incarnation."""

    address: Address
    reason: ExitReason

    def __str__(self) -> str:
        return f"ChildExited({self.address}, {self.reason})"


Parent = Callable[[ChildStarted | ChildExited], None]
"""Who is told of an actor's start and end: its supervisor, or the system for a root."""


class Signal(msgspec.Struct, frozen=True):
    """A message of the runtime's own, which `receive` does not see."""


class Stop(Signal, frozen=True):
    """The actor is to end with this reason."""

    reason: ExitReason


class Crash(Signal, frozen=True):
    """The actor is to raise this error; tests inject faults with it."""

    error: BaseException


class DownSignal(Signal, frozen=True):
    """Becomes a Down for `receive`, unless the monitor is cancelled before."""

    monitor: Monitor
    reason: ExitReason


class FutureDone(Signal, frozen=True):
    """A future that was given to `Actor.pipe` is done."""

    future: Future[Any]
    then: Callable[..., object]
    reply: Reply | None

    def call(self) -> None:
        """Calls `then(value, error)`; with a reply `then(value)`, or raises the future's error."""
        future = self.future
        if self.reply is not None:
            self.then(future.result())
            return
        error = CancelledError() if future.cancelled() else future.exception()
        self.then(None if error is not None else future.result(), error)


class ForSupervisor(Signal, frozen=True):
    """News of a child, or a supervisor's note to itself."""

    event: Any
