"""One incarnation of an actor as other threads see it, and the reference to it.

They send to its mailbox, watch it, stop it, and declare it dead when it does not stop in
time. `runtime` adds the thread that runs the actor.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from manta.actors.address import Address
from manta.actors.clock import Clock
from manta.actors.errors import ActorCrashed, ActorDead, ActorError, Unanswered, WouldDeadlock
from manta.actors.exits import SHUTDOWN, ExitKind, ExitReason
from manta.actors.mailbox import Deadlines, Mailbox
from manta.actors.refs import Envelope, Origin
from manta.actors.replies import BlockingReply, FutureReply, Reply, valid_seconds
from manta.actors.signals import ChildExited, ChildStarted, Parent, Signal, Stop
from manta.actors.specs import ChildInfo, ChildSpec

log = logging.getLogger("manta.actors")

ORPHANS_GRACE = 1.0
"""Seconds that the children of an abandoned supervisor have to stop, together."""


class Host(Protocol):
    """What cells and links need of the system that they belong to."""

    clock: Clock
    deadlines: Deadlines

    def find(self, path: str) -> LocalRef: ...

    def forget(self, cell: Cell) -> None: ...


class _Current(threading.local):
    cell: Cell | None = None


current = _Current()
"""The actor whose thread this is."""


def refuse_if_abandoned() -> None:
    """Raises ActorDead in the thread of an abandoned actor, which runs on but may not send."""
    cell = current.cell
    if cell is not None and cell.abandoned:
        raise ActorDead(f"{cell.address} was abandoned: it did not stop in time, and may not send")


class LocalRef:
    """One incarnation of an actor in this process: never reaches a successor."""

    __slots__ = ("__weakref__", "_cell", "_inbox", "address")

    def __init__(self, cell: Cell) -> None:
        self.address = cell.address
        self._cell = cell
        self._inbox = cell.inbox

    def tell(self, message: Any) -> None:
        """Queues a message; raises MailboxFull or ActorDead."""
        refuse_if_abandoned()
        self._inbox.put(Envelope(message))

    def ask(self, message: Any, *, timeout: float) -> Any:
        """Queues a message and blocks for the answer, `timeout` real seconds at most.

        Raises what the handler raised, MailboxFull, ActorDead, AskTimeout, or WouldDeadlock.
        """
        asker = current.cell
        if asker is not None:
            refuse_if_abandoned()
            path = self.address.path
            if asker.address.path == path or asker.address.path.startswith(f"{path}/"):
                raise WouldDeadlock(
                    f"{asker.address} may not block on {self.address}, itself or its supervisor, "
                    "which may be waiting for it: tell it, or use ask_future"
                )
        valid_seconds(timeout)
        reply = BlockingReply()
        self._inbox.put(Envelope(message, reply))
        return reply.wait(timeout, self.address)

    def ask_future(self, message: Any, *, timeout: float) -> Future[Any]:
        """Queues a message; the future gets the answer, or the error that `ask` would raise.

        `timeout` is in seconds of the system's clock.
        """
        valid_seconds(timeout)
        reply = FutureReply()
        try:
            refuse_if_abandoned()
            self._inbox.put(Envelope(message, reply))
        except ActorError as error:
            reply.fail(error)
        else:
            reply.expire(self._cell.host.deadlines, timeout, self.address)
        return reply.future

    def watch(self, notify: Callable[[ExitReason], None]) -> Callable[[], None]:
        """See Ref.watch."""
        return self._cell.watch(notify)

    def stop(self, reason: ExitReason = SHUTDOWN) -> None:
        """Asks it to end before all that waits in its mailbox; its supervisor may restart it."""
        self._cell.post(Stop(reason))

    def wait(self, timeout: float | None = None) -> ExitReason | None:
        """Blocks until the actor's end, `timeout` real seconds at most; None if it lives on."""
        self._cell.gone.wait(timeout)
        return self._cell.exit_reason

    @property
    def is_alive(self) -> bool:
        return self._cell.exit_reason is None

    @property
    def exit_reason(self) -> ExitReason | None:
        return self._cell.exit_reason

    def __repr__(self) -> str:
        return f"<LocalRef {self.address}>"


class Cell:
    """One incarnation of an actor: its mailbox, watchers, open asks, and its end."""

    def __init__(
        self,
        host: Host,
        spec: ChildSpec,
        address: Address,
        parent: Parent,
        inbox: Mailbox[Envelope],
    ) -> None:
        self.host = host
        self.spec = spec
        self.address = address
        self.inbox = inbox
        self.inbox.configure(host.clock, inbox.bound, str(address))
        self.ref = LocalRef(self)
        self.actor_class = "?"
        self.accepts: Any = None
        self.thread: threading.Thread | None = None
        self.children: dict[str, Cell] = {}
        self.origin: Origin | None = None
        self.abandoned = False
        self.started = False
        self.exit_reason: ExitReason | None = None
        self.begun_at = host.clock.now()
        self.gone = threading.Event()
        self._parent = parent
        self._lock = threading.Lock()  # guards exit_reason, _watchers and _owned
        self._watchers: dict[object, Callable[[ExitReason], None]] = {}
        self._owned: dict[object, Callable[[], object]] = {}
        self._links: dict[LocalRef, Callable[[], None]] = {}
        self._reply: Reply | None = None  # to the ask that is being handled
        self._deferred: set[Reply] = set()

    def child_infos(self) -> Sequence[ChildInfo]:
        """Returns a supervisor's children as they stand; for any thread."""
        return ()

    @property
    def may_run(self) -> bool:
        """Whether its thread is yet to start, or still runs."""
        if self.thread is None:
            return self.exit_reason is None
        return self.thread.is_alive()

    # --- called in the actor's own thread -----------------------------------------------

    def announce_start(self) -> None:
        self.started = True
        self._parent(ChildStarted(self.address))

    def defer(self) -> Reply:
        reply = self._reply
        if reply is None:
            # A tell. Handlers need not know whether somebody waits.
            return Reply()
        self._reply = None
        self._deferred.add(reply)
        chained = reply.on_done

        def done(reply: Reply) -> None:
            self._deferred.discard(reply)
            if chained is not None:
                chained(reply)

        reply.on_done = done
        return reply

    def link(self, ref: LocalRef) -> None:
        if not isinstance(ref, LocalRef):
            raise TypeError(f"{ref!r} is no LocalRef: links are local, monitor it instead.")
        other = ref._cell
        if other is self or ref in self._links:
            return
        self._links[ref] = other.watch(lambda reason: self._linked_exit(ref, reason))
        other._links[self.ref] = self.watch(lambda reason: other._linked_exit(self.ref, reason))

    def unlink(self, ref: LocalRef) -> None:
        for cell, peer in ((self, ref), (ref._cell, self.ref)):
            cancel = cell._links.pop(peer, None)
            if cancel is not None:
                cancel()

    def _linked_exit(self, ref: LocalRef, reason: ExitReason) -> None:
        self._links.pop(ref, None)
        if reason.kind is not ExitKind.NORMAL:
            self.post(Stop(_by_link(ref, reason)))

    # --- called from any thread ---------------------------------------------------------

    def post(self, signal: Signal, *, urgent: bool = True) -> None:
        """Queues a signal, before all messages or in turn, without bound.

        Does nothing when the actor has ended.
        """
        put = self.inbox.put_urgent if urgent else self.inbox.put_unbounded
        try:
            put(Envelope(signal))
        except ActorDead:
            return

    def own(self, close: Callable[[], object]) -> Callable[[], None]:
        """Calls `close` at the actor's end, however that comes; returns what undoes this."""
        token = object()
        with self._lock:
            if self.exit_reason is None:
                self._owned[token] = close
                return lambda: self._disown(token)
        close()
        return lambda: None

    def _disown(self, token: object) -> None:
        with self._lock:
            self._owned.pop(token, None)

    def watch(self, notify: Callable[[ExitReason], None]) -> Callable[[], None]:
        """Calls `notify` once, at the end, or now if it has ended; returns what undoes this."""
        token = object()
        with self._lock:
            if self.exit_reason is None:
                self._watchers[token] = notify
                return lambda: self._unwatch(token)
        notify(self.exit_reason)
        return lambda: None

    def _unwatch(self, token: object) -> None:
        with self._lock:
            self._watchers.pop(token, None)

    def end(self, reason: ExitReason, seconds: float) -> None:
        """Stops it and waits; abandons it if it does not end within `seconds`."""
        self.ref.stop(reason)
        if self.ref.wait(min(seconds, threading.TIMEOUT_MAX)) is None:
            self.abandon(seconds)

    def abandon(self, seconds: float) -> None:
        """Declares it dead, from another thread, because its own did not end within `seconds`."""
        reason = ExitReason(ExitKind.ABANDONED, f"it did not stop within {seconds:g} s")
        self._close_inbox(reason)
        self.abandoned = True
        log.error(
            "%s is abandoned: %s. Its thread runs on until its handler returns.",
            self.address, reason.sentence,
        )  # fmt: skip
        self._exit(reason)
        # Children of a supervisor must not live beside its successor's.
        children = list(self.children.values())
        for child in children:
            child.ref.stop()
        deadline = time.monotonic() + ORPHANS_GRACE
        for child in reversed(children):
            child.end(SHUTDOWN, max(0.0, deadline - time.monotonic()))

    # --- the end, in its own thread, or in one that abandons it -------------------------

    def _fail_open_asks(self, reason: ExitReason) -> None:
        """Fails the ask that is being handled, and those that are deferred."""
        replies = [self._reply] if self._reply is not None else []
        self._reply = None
        replies += list(self._deferred)
        self._deferred.clear()
        for reply in replies:
            self._attempt(reply.fail, self._unanswered(reason))

    def _unanswered(self, reason: ExitReason) -> Unanswered:
        if reason.kind is ExitKind.CRASHED:
            return ActorCrashed(f"{self.address} crashed: {reason.sentence}")
        return Unanswered(f"{self.address} ended ({reason}) without an answer")

    def _close_inbox(self, reason: ExitReason) -> None:
        """Closes the mailbox and fails the asks that are left unread in it."""
        sentence = (
            f"{self.address} is dead ({reason}); its successor, if any, is another incarnation"
        )
        dropped = 0
        for envelope in self.inbox.close(sentence):
            if envelope.reply is not None:
                envelope.reply.taken()
                self._attempt(envelope.reply.fail, ActorDead(sentence))
            elif not isinstance(envelope.message, Signal):
                dropped += 1
        if dropped:
            log.warning("%s ended with %d messages unread", self.address, dropped)

    def _exit(self, reason: ExitReason) -> None:
        """Tells watchers and the parent, once."""
        with self._lock:
            if self.exit_reason is not None:
                return
            self.exit_reason = reason
            watchers = list(self._watchers.values())
            self._watchers.clear()
            owned = [*self._owned.values(), *self._links.values()]
            self._owned.clear()
        for close in reversed(owned):
            self._attempt(close)
        self._fail_open_asks(reason)
        self._close_inbox(reason)
        self.host.forget(self)
        for notify in watchers:
            self._attempt(notify, reason)
        self.gone.set()
        self._parent(ChildExited(self.address, reason))

    def _attempt(self, call: Callable[..., object], *arguments: object) -> None:
        """Logs what `call` raises, so that the others are told all the same."""
        try:
            call(*arguments)
        except Exception as error:
            log.error("%s, at its end: %s failed", self.address, call, exc_info=error)


def _by_link(ref: LocalRef, reason: ExitReason) -> ExitReason:
    kind = reason.kind if reason.kind in (ExitKind.SHUTDOWN, ExitKind.GAVE_UP) else ExitKind.CRASHED
    return ExitReason(kind, f"linked {ref.address} ended: {reason}", reason.error)
