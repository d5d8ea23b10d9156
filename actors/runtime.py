"""Runs actors on pykka's threads. The only module that knows pykka.

Taken from pykka: the actor's thread and its inbox seam. Replaced, for the
reasons in `docs/actors.md`: the inbox (lanes, bound, timers, closing under a
lock) and the loop (every way to end comes out at one place, once). pykka's
global registry is never told of our actors, because its `stop_all` would reach
those of every system in the process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import pykka

from manta.actors.actor import Actor, ActorLog, Monitor
from manta.actors.address import Address
from manta.actors.errors import ActorCrashed, ActorDead, AskTimeout, Refused
from manta.actors.mailbox import Mailbox, Timer
from manta.actors.refs import Envelope, LocalRef, Origin, Ref, Reply, current
from manta.actors.signals import (
    NORMAL,
    SHUTDOWN,
    ActorExit,
    ChildExited,
    ChildStarted,
    Crash,
    Down,
    ExitKind,
    ExitReason,
    Parental,
    Signal,
    Stop,
    crashed,
)

if TYPE_CHECKING:
    from manta.actors.specs import ChildSpec
    from manta.actors.system import ActorSystem

log = logging.getLogger("manta.actors")

ORPHAN_GRACE = 1.0  # seconds that the children of an abandoned supervisor have, together


class Parent(Protocol):
    """Whoever hears of a child's start and end: a supervisor, or the system for a root."""

    def child_started(self, event: ChildStarted) -> None: ...

    def child_exited(self, event: ChildExited) -> None: ...


class Closeable(Protocol):
    """What ends with the actor that opened it."""

    def close(self) -> None: ...


class DownSignal(Signal, frozen=True):
    """Becomes a Down, unless the monitor was cancelled meanwhile."""

    monitor: Monitor
    reason: ExitReason


class Cell(pykka.ThreadingActor):
    """One incarnation: its thread, mailbox, watchers, and the user's Actor object."""

    # An abandoned thread must not keep the process from ending; System.stop joins the others.
    use_daemon_thread = True

    actor_inbox: Mailbox[Envelope]  # type: ignore[assignment]

    def __init__(
        self, system: ActorSystem, spec: ChildSpec, address: Address, parent: Parent
    ) -> None:
        super().__init__()
        self.system = system
        self.spec = spec
        self.address = address
        self.inbox = self.actor_inbox
        self.inbox.configure(system.clock, self.inbox.bound, str(address))
        self.ref = LocalRef(self)
        self.actor: Actor | None = None
        self.actor_class = "?"
        self.accepts: Any = None
        self.thread: threading.Thread | None = None
        self.children: dict[str, Cell] = {}
        self.origin: Origin | None = None
        self.abandoned = False
        self.started = False
        self.exit_reason: ExitReason | None = None
        self.begun_at = system.clock.now()
        self._parent = parent
        self._lock = threading.Lock()  # of exit_reason, _watchers, _owned
        self._watchers: dict[object, Callable[[ExitReason], None]] = {}
        self._owned: list[Closeable] = []
        self._links: dict[LocalRef, Callable[[], None]] = {}
        self._reply: Reply | None = None
        self._deferred: set[Reply] = set()
        self._gone = threading.Event()

    @staticmethod
    def _create_actor_inbox() -> Mailbox[Envelope]:  # type: ignore[override]
        return Mailbox()

    def launch(self) -> None:
        """Start the thread; what becomes of it comes through the parent."""
        try:
            self._start_actor_loop()
        except RuntimeError as error:  # no more threads to be had
            self._exit(crashed(error, "could not start a thread: "))

    # --- in the actor's own thread ----------------------------------------------------

    def _actor_loop(self) -> None:
        self.thread = threading.current_thread()
        self.thread.name = self.address.path
        current.cell = self
        reason = NORMAL
        try:
            self._bring_up()
            self._serve()
        except ActorExit as exit:
            reason = exit.reason
        except BaseException as error:
            reason = crashed(error)
        self._fail_open_asks(reason)
        if self._begin_exit(reason):
            reason = self._tear_down(reason)
            self._exit(reason)
        self.actor = None

    def _bring_up(self) -> None:
        actor = self.spec.start()
        if not isinstance(actor, Actor):
            raise TypeError(
                f"ChildSpec {self.spec.id!r}: start returned a {type(actor).__name__}, "
                "where a new Actor is wanted."
            )
        if "_cell" in vars(actor):
            raise TypeError(
                f"ChildSpec {self.spec.id!r}: start returned an actor that ran before; it must "
                "make a new one each time."
            )
        self.inbox.configure(self.system.clock, actor.mailbox.bound, str(self.address))
        actor._cell = self
        actor.ref = self.ref
        actor.system = self.system
        actor.clock = self.system.clock
        actor.log = ActorLog(
            logging.getLogger(type(actor).__module__), {"actor": self.address.path}
        )
        self.actor_class = type(actor).__name__
        self.accepts = actor.accepts
        actor.on_start()
        self.actor = actor
        actor._started()

    def _serve(self) -> None:
        actor = self.actor
        assert actor is not None
        get, handle = self.inbox.get, actor._handle
        while True:
            envelope = get()
            message, reply = envelope.message, envelope.reply
            if isinstance(message, Signal):
                if not isinstance(message, DownSignal):
                    self._signal(actor, message)
                    continue
                monitor = message.monitor
                if not monitor.active:
                    continue
                monitor.active = False
                message = Down(monitor.ref, message.reason)
            if reply is None:
                if envelope.deadline is not None and self._is_late(envelope):
                    continue
            elif reply.done or (envelope.deadline is not None and self._is_late(envelope)):
                continue
            origin = envelope.origin
            if origin is not None and origin.is_revoked:
                continue  # cut off while this waited: nothing of it is handled any more
            self._reply = reply
            self.origin = origin
            try:
                answer = handle(message)
            except Refused as refusal:
                # Whoever deferred has promised an answer; a refusal is one.
                if reply is not None:
                    reply.fail(refusal)
                else:
                    actor.log.warning("refused %s: %s", type(message).__name__, refusal)
            else:
                if reply is not None and self._reply is not None:
                    reply.set(answer)
            self._reply = None
            self.origin = None

    def _is_late(self, envelope: Envelope) -> bool:
        assert envelope.deadline is not None
        late = self.system.clock.now() - envelope.deadline
        if late < 0:
            return False
        kind = type(envelope.message).__name__
        sentence = f"{kind} was not handled by {self.address}: it had expired {late:.3f} s before"
        if envelope.reply is not None:
            envelope.reply.fail(AskTimeout(sentence))
        log.warning("%s", sentence)
        return True

    def _signal(self, actor: Actor, signal: Signal) -> None:
        match signal:
            case Stop(reason):
                actor._stop_asked(reason)
            case Crash(error):
                raise error
            case Parental(event):
                actor._parental(event)
            case _:
                raise TypeError(f"unknown signal {signal!r}")

    def _fail_open_asks(self, reason: ExitReason) -> None:
        """The ask being handled, and those deferred: told at once, before on_stop."""
        replies = [self._reply] if self._reply is not None else []
        self._reply = None
        replies += list(self._deferred)
        self._deferred.clear()
        for reply in replies:
            self._whatever(reply.fail, self._obituary(reason))

    def _obituary(self, reason: ExitReason) -> ActorDead:
        if reason.kind is ExitKind.CRASHED:
            return ActorCrashed(f"{self.address} crashed: {reason.sentence}")
        return ActorDead(f"{self.address} ended ({reason}) without an answer")

    def _tear_down(self, reason: ExitReason) -> ExitReason:
        if self.actor is not None:
            try:
                self.actor.on_stop(reason)
            except BaseException as error:
                in_stop = crashed(error, "in on_stop: ")
                if reason.is_normal:
                    reason = in_stop
                else:
                    log.error("%s: %s", self.address, in_stop, exc_info=error)
        # A supervisor has stopped its children in due form by now, unless it crashed itself.
        for child in reversed(list(self.children.values())):
            child.end(SHUTDOWN, child.spec.seconds_to_stop)
        return reason

    # --- the end, from whichever thread comes first -------------------------------------

    def _begin_exit(self, reason: ExitReason) -> bool:
        """Close the mailbox; False when the actor was abandoned before."""
        if self.abandoned:
            return False
        sentence = (
            f"{self.address} is dead ({reason}); its successor, if any, is another incarnation"
        )
        dropped = 0
        for envelope in self.inbox.close(sentence):
            if envelope.reply is not None:
                self._whatever(envelope.reply.fail, ActorDead(sentence))
            elif not isinstance(envelope.message, Signal):
                dropped += 1
        if dropped:
            log.warning("%s ended with %d messages unread", self.address, dropped)
        return True

    def _exit(self, reason: ExitReason) -> None:
        """Tell everybody, once."""
        with self._lock:
            if self.exit_reason is not None:
                return
            self.exit_reason = reason
            watchers = list(self._watchers.values())
            self._watchers.clear()
            owned, self._owned = self._owned, []
        for closeable in reversed(owned):
            self._whatever(closeable.close)
        self._fail_open_asks(reason)
        self._begin_exit(reason)
        self.system._forget(self)
        for notify in watchers:
            self._whatever(notify, reason)
        self._gone.set()
        self._parent.child_exited(ChildExited(self.address, reason))

    def _whatever(self, call: Callable[..., object], *arguments: object) -> None:
        """One who cannot be told must not keep the others from being told."""
        try:
            call(*arguments)
        except Exception as error:
            log.error("%s, at its end: %s failed", self.address, call, exc_info=error)

    def abandon(self, reason: ExitReason) -> None:
        """Declare it dead though its thread cannot be killed; from another thread."""
        self._begin_exit(reason)
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
        deadline = time.monotonic() + ORPHAN_GRACE
        for child in reversed(children):
            child.end(SHUTDOWN, max(0.0, deadline - time.monotonic()))

    def end(self, reason: ExitReason, seconds: float) -> None:
        """Stop it and wait; abandon it when `seconds` were not enough."""
        self.ref.stop(reason)
        if self.wait(min(seconds, threading.TIMEOUT_MAX)) is None:
            self.abandon(ExitReason(ExitKind.ABANDONED, f"it did not stop within {seconds:g} s"))

    def wait(self, timeout: float | None) -> ExitReason | None:
        self._gone.wait(timeout)
        return self.exit_reason

    # --- what an actor may ask of its runtime --------------------------------------------

    def announce_start(self) -> None:
        self.started = True
        self._parent.child_started(ChildStarted(self.address))

    def after(self, delay: float, message: Any) -> Timer[Any]:
        return self.inbox.schedule(self.system.clock.now() + delay, Envelope(message))

    def defer(self) -> Reply:
        reply = self._reply
        if reply is None:
            # A tell: nobody waits, yet the handler may be written for both.
            return _Nobody()
        self._reply = None
        self._deferred.add(reply)
        chained = reply.on_done

        def done(reply: Reply) -> None:
            self._deferred.discard(reply)
            if chained is not None:
                chained(reply)

        reply.on_done = done
        return reply

    def own(self, closeable: Closeable) -> None:
        """Close it at the actor's end, whatever that is."""
        with self._lock:
            if self.exit_reason is None:
                self._owned.append(closeable)
                return
        closeable.close()

    def watch(self, notify: Callable[[ExitReason], None]) -> Callable[[], None]:
        """Call `notify` once, at the end or now."""
        token = object()
        with self._lock:
            if self.exit_reason is None:
                self._watchers[token] = notify
                return lambda: self._unwatch(token)
        notify(self.exit_reason)
        return _nothing

    def _unwatch(self, token: object) -> None:
        with self._lock:
            self._watchers.pop(token, None)

    def monitor(self, ref: Ref) -> Monitor:
        monitor = Monitor(ref)

        def notify(reason: ExitReason) -> None:
            try:
                # In the normal lane: what it said before it died is heard before.
                self.inbox.put_unbounded(Envelope(DownSignal(monitor, reason)))
            except ActorDead:
                return  # we ended first: nobody is left to tell

        monitor._cancel = ref.watch(notify)
        return monitor

    def link(self, ref: LocalRef) -> None:
        other = _cell_of(ref)
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
        if reason.kind is ExitKind.NORMAL:
            return
        try:
            self.inbox.put_urgent(Envelope(Stop(_by_link(ref, reason))))
        except ActorDead:
            return  # we ended first


def _cell_of(ref: object) -> Cell:
    if not isinstance(ref, LocalRef):
        raise TypeError(f"{ref!r} is no LocalRef: links are local, monitor it instead.")
    return ref._cell


def _by_link(ref: LocalRef, reason: ExitReason) -> ExitReason:
    kind = reason.kind if reason.kind in (ExitKind.SHUTDOWN, ExitKind.GAVE_UP) else ExitKind.CRASHED
    return ExitReason(kind, f"linked {ref.address} ended: {reason}", reason.error)


class _Nobody(Reply):
    """Where the answers to a tell go."""

    __slots__ = ()

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        pass


def _nothing() -> None:
    pass
