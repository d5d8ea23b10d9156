"""What the runtime says to an actor, about its own end, its children and those it monitors."""

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
    """A standing wish to hear of an actor's end."""

    __slots__ = ("_cancel", "active", "ref")

    def __init__(self, ref: Ref) -> None:
        self.ref = ref
        self.active = True
        self._cancel: Callable[[], None] | None = None

    def cancel(self) -> None:
        """No Down arrives after this, not even one that was on its way."""
        self.active = False
        if self._cancel is not None:
            self._cancel()


class Down(msgspec.Struct, frozen=True):
    """To who monitors: the actor behind `ref` ended, or cannot be seen any more."""

    ref: Ref
    reason: ExitReason


class ChildStarted(msgspec.Struct, frozen=True):
    """To the parent: the child is ready."""

    address: Address


class ChildExited(msgspec.Struct, frozen=True):
    """To the parent, exactly once per incarnation."""

    address: Address
    reason: ExitReason

    def __str__(self) -> str:
        return f"ChildExited({self.address}, {self.reason})"


Parent = Callable[[ChildStarted | ChildExited], None]
"""Who is told of an actor's start and end: its supervisor, or the system for a root."""


class Signal(msgspec.Struct, frozen=True):
    """What the runtime itself says to an actor."""


class Stop(Signal, frozen=True):
    """End with this reason."""

    reason: ExitReason


class Crash(Signal, frozen=True):
    """Raise this: fault injection, and the death of a linked actor."""

    error: BaseException


class DownSignal(Signal, frozen=True):
    """Becomes a Down, unless the monitor was cancelled meanwhile."""

    monitor: Monitor
    reason: ExitReason


class FutureDone(Signal, frozen=True):
    """A future that the actor gave to `pipe` is done."""

    future: Future[Any]
    then: Callable[..., object]
    reply: Reply | None

    def call(self) -> None:
        """Hand the outcome to `then`; with a reply only a result is, and an error is raised."""
        future = self.future
        if self.reply is not None:
            self.then(future.result())
            return
        error = CancelledError() if future.cancelled() else future.exception()
        self.then(None if error is not None else future.result(), error)


class Parental(Signal, frozen=True):
    """News of a child, or the supervisor's own note to itself."""

    event: Any
