"""The base class of supervisors: the actor that owns a supervision machine."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, assert_never

import msgspec

from manta.actors import events as ev
from manta.actors.actor import Actor
from manta.actors.address import Address
from manta.actors.cell import Cell, LocalRef
from manta.actors.errors import ActorDead, NameTaken, Refused
from manta.actors.exits import SHUTDOWN, ActorExit, ExitKind, ExitReason, crashed
from manta.actors.mailbox import Timer
from manta.actors.replies import Reply
from manta.actors.runtime import prepare
from manta.actors.signals import ChildExited, ChildStarted, ForSupervisor
from manta.actors.specs import AutoShutdown, ChildInfo, ChildSpec, Phase, Restart, Strategy
from manta.actors.supervision import Child, Supervision


class StartChild(msgspec.Struct, frozen=True):
    """Adds a child; answered with its LocalRef once it has started, else Refused."""

    spec: ChildSpec


class StopChild(msgspec.Struct, frozen=True):
    """Stops a child and forgets its spec; answered when it is down."""

    id: str


class RestartChild(msgspec.Struct, frozen=True):
    """Starts a child that has ended and whose spec is kept; answered with its LocalRef."""

    id: str


class WhichChildren(msgspec.Struct, frozen=True):
    """Answered with a list of ChildInfo, in start order."""


class _StopOverdue(msgspec.Struct, frozen=True):
    id: str
    incarnation: int


Then = Callable[[LocalRef | None, Refused | None], None]


class Supervisor(Actor):
    """Starts children in order, restarts them when they fail, and stops them in reverse.

    Subclasses set the class attributes and return specs from `children`. They
    may override `receive` for messages of their own, and the two `on_child_` hooks.
    """

    strategy: ClassVar[Strategy] = Strategy.ONE_FOR_ONE
    intensity: ClassVar[int] = 1
    period: ClassVar[float] = 5.0
    auto_shutdown: ClassVar[AutoShutdown] = AutoShutdown.NEVER

    _machine: Supervision  # this and the next are set once on_start has returned
    _cells: dict[str, Cell]
    _timers: dict[str, Timer[Any]]
    _events: deque[ev.Event]
    _is_up = False
    _feeding = False

    def children(self) -> list[ChildSpec]:
        """Returns the children to start with, in order; called after `on_start`."""
        return []

    def on_child_started(self, id: str, ref: LocalRef) -> None:
        """Called when a child has started, for the first time or again."""

    def on_child_exited(self, id: str, reason: ExitReason) -> None:
        """Called when a child has ended, once it is decided what to do about it."""

    def child(self, id: str) -> LocalRef | None:
        """Returns the child's current incarnation; None while it has none."""
        cell = self._cells.get(id) if self._is_up else None
        return cell.ref if cell is not None and cell.exit_reason is None else None

    def start_child(self, spec: ChildSpec, then: Then | None = None) -> None:
        """Does what StartChild does. Returns at once; calls `then(ref, refusal)` when done."""
        self._feed(ev.Add(spec, then))

    def stop_child(self, id: str, then: Then | None = None) -> None:
        """Does what StopChild does. Returns at once; calls `then` when done."""
        self._feed(ev.Remove(id, then))

    # --- called by the runtime ---------------------------------------------------------

    def _started(self) -> None:
        self._machine = Supervision(
            self.children(),
            strategy=self.strategy,
            intensity=self.intensity,
            period=self.period,
            auto_shutdown=self.auto_shutdown,
        )
        self._cells = {}
        self._timers = {}
        self._events = deque()
        self._is_up = True
        self._feed(ev.Boot())

    def _handle(self, message: Any) -> Any:
        match message:
            case StartChild(spec):
                self._feed(ev.Add(spec, self.defer()))
            case RestartChild(id):
                self._feed(ev.Revive(id, self.defer()))
            case StopChild(id):
                self._feed(ev.Remove(id, self.defer()))
            case WhichChildren():
                return self._child_infos()
            case _:
                return self.receive(message)
        return None

    def _on_stop_requested(self, reason: ExitReason) -> None:
        self._feed(ev.Shutdown(reason))

    def _on_supervisor_event(self, event: Any) -> None:
        match event:
            case ChildStarted(address):
                id = self._current(address)
                if id is not None:
                    self._feed(ev.Started(id))
                    if self._machine.children[id].phase is Phase.RUNNING:
                        self.on_child_started(id, self._cells[id].ref)
            case ChildExited(address, reason):
                id = self._current(address)
                if id is not None:
                    self._log_exit(id, event)
                    self._forget(id)
                    try:
                        self._feed(ev.Exited(id, reason))
                    finally:  # also when the exit of the last child ends this supervisor
                        self.on_child_exited(id, reason)
            case ev.RetryDue() | ev.Exited():
                self._feed(event)
            case _StopOverdue(id, incarnation):
                cell = self._cells.get(id)
                if cell is not None and cell.address.incarnation == incarnation:
                    self._feed(ev.Overdue(id))
            case _:
                super()._on_supervisor_event(event)

    def _current(self, address: Address) -> str | None:
        id = address.path.removeprefix(f"{self.ref.address.path}/")
        cell = self._cells.get(id)
        return id if cell is not None and cell.address == address else None

    def _forget(self, id: str) -> None:
        del self._cells[id]
        self._cell.children.pop(id, None)
        timer = self._timers.pop(id, None)
        if timer is not None:
            timer.cancel()

    def _log_exit(self, id: str, event: ChildExited) -> None:
        child = self._machine.children[id]
        expected = event.reason.is_normal and (
            child.phase is Phase.STOPPING or child.spec.restart is not Restart.PERMANENT
        )
        if expected:
            self.log.debug("%s", event)
        else:
            self.log.error("%s", event, exc_info=event.reason.error)

    def _feed(self, event: ev.Event) -> None:
        if not self._is_up:
            raise RuntimeError(
                f"{type(self).__name__} has no children before its on_start returned: name those "
                "to start with in children()."
            )
        self._events.append(event)
        if self._feeding:  # called from a hook: the loop below goes on with it
            return
        self._feeding = True
        try:
            while self._events:
                actions = self._machine.handle(self._events.popleft(), self.clock.now())
                for action in actions:
                    self._perform(action)
        finally:
            self._feeding = False

    def _child_infos(self) -> list[ChildInfo]:
        """See Cell.child_infos."""
        if not self._is_up:
            return []
        return [self._info(child) for child in list(self._machine.children.values())]

    def _info(self, child: Child) -> ChildInfo:
        spec = child.spec
        cell = self._cells.get(spec.id)
        return ChildInfo(
            spec.id, child.phase, spec.type, spec.restart, child.restarts,
            cell.address if cell else None, child.last_exit,
        )  # fmt: skip

    def _perform(self, action: ev.Action) -> None:
        match action:
            case ev.Start(spec, restarting):
                if restarting:
                    self.log.info("restarting %s", spec.id)
                self._start(spec)
            case ev.Halt(id, seconds):
                self._halt(id, seconds)
            case ev.Abandon(id):
                if id in self._cells:
                    self._cells[id].abandon(self._machine.children[id].spec.seconds_to_stop)
            case ev.Retry(id):
                self._note(ev.RetryDue(id))
            case ev.Answer(token, id, code, sentence):
                self._answer(token, id, code, sentence)
            case ev.Booted():
                self._cell.announce_start()
            case ev.Exit(reason):
                if reason.kind is ExitKind.GAVE_UP:
                    self.log.error("gives up: %s", reason.sentence)
                raise ActorExit(reason)
            case _:
                assert_never(action)

    def _start(self, spec: ChildSpec) -> None:
        path, own = f"{self.ref.address.path}/{spec.id}", self._cell
        try:
            cell = prepare(self.system, spec, path, lambda news: own.post(ForSupervisor(news)))
        except (ActorDead, NameTaken) as error:
            self._note(ev.Exited(spec.id, crashed(error)))
            return
        self._cells[spec.id] = cell
        self._cell.children[spec.id] = cell
        cell.launch()

    def _halt(self, id: str, seconds: float) -> None:
        cell = self._cells.get(id)
        if cell is None:  # its exit is on its way here
            return
        cell.ref.stop(SHUTDOWN)
        if seconds < math.inf:
            note = ForSupervisor(_StopOverdue(id, cell.address.incarnation))
            self._timers[id] = self.after(seconds, note)

    def _answer(self, token: object, id: str, code: str, sentence: str) -> None:
        ref = self.child(id)
        refusal = Refused(code, f"{self.ref.address}: {sentence}", {"id": id}) if code else None
        if isinstance(token, Reply):
            if refusal is not None:
                token.fail(refusal)
            else:
                token.set(ref)
        elif callable(token):
            token(ref, refusal)
        elif refusal is not None:
            self.log.warning("%s", refusal)

    def _note(self, event: ev.Event) -> None:
        """Posts an event to this supervisor, in turn; a stop overtakes it."""
        self._cell.post(ForSupervisor(event), urgent=False)
