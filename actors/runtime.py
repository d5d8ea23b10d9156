"""Runs actors on pykka's threads. No other module imports pykka.

pykka provides the thread, and the hook that makes its inbox. The inbox itself
and the loop are replaced, for the reasons in `docs/actors.md`: the inbox has
lanes, a bound and timers and can be closed; the loop ends in one place, once,
however the actor ends. Actors are not entered in pykka's global registry, whose
`stop_all` would stop those of every system in the process.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import pykka

from manta.actors.actor import Actor, ActorLog
from manta.actors.address import Address, next_incarnation
from manta.actors.cell import Cell, current
from manta.actors.errors import AskTimeout, Refused
from manta.actors.exits import NORMAL, SHUTDOWN, ActorExit, ExitReason, crashed
from manta.actors.mailbox import Mailbox
from manta.actors.refs import Envelope
from manta.actors.registry import Registry
from manta.actors.replies import Reply
from manta.actors.signals import (
    Crash,
    Down,
    DownSignal,
    ForSupervisor,
    FutureDone,
    Parent,
    Signal,
    Stop,
)
from manta.actors.specs import ChildInfo, ChildSpec

log = logging.getLogger("manta.actors")


class ThreadedCell(pykka.ThreadingActor, Cell):
    """A Cell with the thread that runs its Actor."""

    # An abandoned thread must not keep the process from ending; ActorSystem.stop joins the others.
    use_daemon_thread = True

    actor_inbox: Mailbox[Envelope]  # type: ignore[assignment]
    host: Registry

    def __init__(self, system: Registry, spec: ChildSpec, address: Address, parent: Parent) -> None:
        pykka.ThreadingActor.__init__(self)
        Cell.__init__(self, system, spec, address, parent, self.actor_inbox)
        self.actor: Actor | None = None

    @staticmethod
    def _create_actor_inbox() -> Mailbox[Envelope]:  # type: ignore[override]
        return Mailbox()

    def launch(self) -> None:
        """Starts the thread; the parent is told what becomes of it."""
        try:
            self._start_actor_loop()
        except RuntimeError as error:  # no more threads to be had
            self._exit(crashed(error, "could not start a thread: "))

    def child_infos(self) -> Sequence[ChildInfo]:
        actor = self.actor
        return () if actor is None else actor._child_infos()

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
        self._fail_open_asks(reason)  # at once, before on_stop
        if not self.abandoned:
            self._close_inbox(reason)
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
        self.inbox.configure(self.host.clock, actor.mailbox.bound, str(self.address))
        actor._cell = self
        actor.ref = self.ref
        actor.system = self.host
        actor.clock = self.host.clock
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
                monitor.cancel()
                message = Down(monitor.ref, message.reason)
            origin = envelope.origin
            if origin is not None and reply is not None:
                reply.taken()
            if reply is None:
                if envelope.deadline is not None and self._is_late(envelope):
                    continue
            elif reply.done or (envelope.deadline is not None and self._is_late(envelope)):
                continue
            if origin is not None and origin.is_revoked:
                continue  # its peer was cut off while it waited
            self._reply = reply
            self.origin = origin
            try:
                answer = handle(message)
            except Refused as refusal:
                # Also when the handler has deferred: a refusal is an answer.
                _refuse(actor, message, refusal, reply)
            else:
                if reply is not None and self._reply is not None:
                    reply.set(answer)
            self._reply = None
            self.origin = None

    def _is_late(self, envelope: Envelope) -> bool:
        assert envelope.deadline is not None
        late = self.host.clock.now() - envelope.deadline
        if late < 0:
            return False
        kind = type(envelope.message).__name__
        sentence = f"{kind} was not handled by {self.address}: it had expired {late:.3f} s before"
        if envelope.reply is not None:  # then who sent it is told, however many they are
            envelope.reply.fail(AskTimeout(sentence))
        log.log(logging.WARNING if envelope.reply is None else logging.DEBUG, "%s", sentence)
        return True

    def _signal(self, actor: Actor, signal: Signal) -> None:
        match signal:
            case Stop(reason):
                actor._on_stop_requested(reason)
            case Crash(error):
                raise error
            case FutureDone(reply=reply):
                try:
                    signal.call()
                except Refused as refusal:
                    _refuse(actor, signal, refusal, reply)
            case ForSupervisor(event):
                actor._on_supervisor_event(event)
            case _:
                raise TypeError(f"unknown signal {signal!r}")

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
        # A supervisor has stopped its children in order by now, unless it crashed.
        for child in reversed(list(self.children.values())):
            child.end(SHUTDOWN, child.spec.seconds_to_stop)
        return reason


def _refuse(actor: Actor, message: object, refusal: Refused, reply: Reply | None) -> None:
    if reply is not None:
        reply.fail(refusal)
    else:
        actor.log.warning("refused %s: %s", type(message).__name__, refusal)


def prepare(system: Registry, spec: ChildSpec, path: str, parent: Parent) -> ThreadedCell:
    """Registers a cell that does not run yet; messages to it wait.

    Raises NameTaken, or ActorDead for a root once the system stops.
    """
    cell = ThreadedCell(system, spec, Address(system.name, path, next_incarnation()), parent)
    system.register(cell)
    return cell
