"""Which children to start, stop and restart, and when to give up: OTP's supervisor.

Theory of operation. Starting and stopping take time, during which the
supervisor stays responsive. So there is at most one *operation* under way: a
list of children to stop, one after another, then a list to start, one after
another, and a goal that says what it is for. Events that come meanwhile wait in
a backlog and are handled in the order of arrival, as they would be in the
mailbox of OTP's supervisor, which blocks. Only a shutdown does not wait: it
replaces the operation. The supervisor performs each action and reports back
with an event.

    event              child's phase      what is done
    Started            STARTING           RUNNING; the next of the operation
    Exited             STARTING           boot: stop the rest, exit; restart: RETRYING, Retry;
                                          add: forget it, answer no
    Exited             STOPPING           DOWN; the next of the operation
    Exited             RUNNING            no operation: by restart type, below; else backlog
    Overdue            STOPPING           Abandon: the shell answers with Exited
    RetryDue           RETRYING           restart it, unless someone else just did

    restart type       exit NORMAL, SHUTDOWN, GAVE_UP     any other exit
    PERMANENT          restart                            restart
    TRANSIENT          keep the spec, auto-shutdown       restart
    TEMPORARY          forget it, auto-shutdown           forget it, auto-shutdown

    strategy           a restart stops, last first        and starts, first first
    ONE_FOR_ONE        -                                  the child
    ONE_FOR_ALL        all others                         all
    REST_FOR_ONE       those started after it             it and those after it

Temporary children stopped by another's restart are forgotten. Every restart,
repeated attempts included, counts towards `intensity` within `period` seconds;
one more than that, and the supervisor stops its children and exits: escalation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum, auto
from typing import assert_never

import msgspec

from manta.actors import events as ev
from manta.actors.exits import SHUTDOWN, ExitKind, ExitReason
from manta.actors.specs import AutoShutdown, ChildSpec, Phase, Restart, Strategy

_Request = ev.Add | ev.Revive | ev.Remove


class _Goal(Enum):
    BOOT = auto()
    RESTART = auto()
    ADD = auto()
    REVIVE = auto()
    REMOVE = auto()
    SHUTDOWN = auto()


class _Operation(msgspec.Struct):
    goal: _Goal
    stops: deque[str] = msgspec.field(default_factory=deque)
    starts: deque[str] = msgspec.field(default_factory=deque)
    target: str = ""
    token: object = None
    reason: ExitReason = SHUTDOWN


class Child(msgspec.Struct):
    """A child's spec and its state."""

    spec: ChildSpec
    phase: Phase = Phase.DOWN
    restarts: int = 0
    last_exit: ExitReason | None = None


class Supervision:
    """The supervision machine; see the module's theory of operation."""

    def __init__(
        self,
        specs: Iterable[ChildSpec],
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: int = 1,
        period: float = 5.0,
        auto_shutdown: AutoShutdown = AutoShutdown.NEVER,
    ) -> None:
        self.strategy = strategy
        self.intensity = intensity
        self.period = period
        self.auto_shutdown = auto_shutdown
        self.children: dict[str, Child] = {}  # in start order
        self.ended = False
        self._operation: _Operation | None = None
        self._backlog: deque[ev.Event] = deque()
        self._restarts: deque[float] = deque()
        for spec in specs:
            refusal = self._refusal(spec)
            if refusal:
                raise ValueError(refusal[1])
            self.children[spec.id] = Child(spec)

    def handle(self, event: ev.Event, now: float) -> list[ev.Action]:
        """Returns what to do about `event`; reports on earlier actions are events too."""
        actions: list[ev.Action] = []
        if self.ended:
            if isinstance(event, _Request):
                actions.append(_stopping(event))
            return actions
        self._take(event, now, actions)
        while self._operation is None and self._backlog:
            self._take(self._backlog.popleft(), now, actions)
        return actions

    def _take(self, event: ev.Event, now: float, actions: list[ev.Action]) -> None:
        match event:
            case ev.Shutdown(reason):
                self._shut_down(reason, actions)
            case ev.Started(id):
                self._started(id, actions)
            case ev.Overdue(id):
                child = self.children.get(id)
                if child and child.phase is Phase.STOPPING:
                    actions.append(ev.Abandon(id))
            case ev.Exited(id, reason):
                self._exited(id, reason, now, actions)
            case ev.Boot() | ev.RetryDue() | ev.Add() | ev.Revive() | ev.Remove():
                if self._operation is None:
                    self._begin(event, now, actions)
                elif self._operation.goal is not _Goal.SHUTDOWN:
                    self._backlog.append(event)
                elif isinstance(event, _Request):
                    actions.append(_stopping(event))
            case _:
                assert_never(event)

    # --- what begins an operation -------------------------------------------------

    def _begin(
        self, event: ev.Boot | ev.RetryDue | _Request, now: float, actions: list[ev.Action]
    ) -> None:
        match event:
            case ev.Boot():
                self._run(_Operation(_Goal.BOOT, starts=deque(self.children)), actions)
            case ev.RetryDue(id):
                child = self.children.get(id)
                if child and child.phase is Phase.RETRYING:
                    self._restart(child, now, actions)
            case ev.Add(spec, token):
                refusal = self._refusal(spec)
                if refusal:
                    actions.append(ev.Answer(token, spec.id, *refusal))
                    return
                self.children[spec.id] = Child(spec)
                self._run(_Operation(_Goal.ADD, deque(), deque([spec.id]), spec.id, token), actions)
            case ev.Revive(id, token):
                child = self.children.get(id)
                if child is None:
                    actions.append(ev.Answer(token, id, "not_found", f"There is no child {id!r}."))
                elif child.phase is not Phase.DOWN:
                    word = "restarting" if child.phase is Phase.RETRYING else "running"
                    actions.append(ev.Answer(token, id, word, f"Child {id!r} is {word} already."))
                else:
                    self._run(_Operation(_Goal.REVIVE, deque(), deque([id]), id, token), actions)
            case ev.Remove(id, token):
                if id not in self.children:
                    actions.append(ev.Answer(token, id, "not_found", f"There is no child {id!r}."))
                else:
                    self._run(_Operation(_Goal.REMOVE, deque([id]), deque(), id, token), actions)
            case _:
                assert_never(event)

    def _refusal(self, spec: ChildSpec) -> tuple[str, str] | None:
        child = self.children.get(spec.id)
        if child is not None:
            if child.phase in (Phase.DOWN, Phase.RETRYING):
                return (
                    "already_present",
                    f"Child {spec.id!r} is known though it is not running: remove it first, "
                    "or take another id.",
                )
            return "already_started", f"Child {spec.id!r} exists already: take another id."
        if spec.significant and self.auto_shutdown is AutoShutdown.NEVER:
            return (
                "bad_spec",
                f"Child {spec.id!r} is significant, but its supervisor's auto_shutdown is never.",
            )
        return None

    def _shut_down(self, reason: ExitReason, actions: list[ev.Action]) -> None:
        """Stops all children; replaces the operation under way."""
        if self._operation is not None:
            if self._operation.goal is _Goal.SHUTDOWN:
                return
            if self._operation.token is not None:
                actions.append(ev.Answer(self._operation.token, self._operation.target, *_STOPPING))
        for event in self._backlog:
            if isinstance(event, _Request):
                actions.append(_stopping(event))
        # Children that ended meanwhile need no stopping.
        self._backlog = deque(event for event in self._backlog if isinstance(event, ev.Exited))
        order = list(reversed(self.children))
        # One at a time, so a child that is being stopped already comes first.
        order.sort(key=lambda id: self.children[id].phase is not Phase.STOPPING)
        self._run(_Operation(_Goal.SHUTDOWN, deque(order), reason=reason), actions)

    def _restart(self, child: Child, now: float, actions: list[ev.Action]) -> None:
        id = child.spec.id
        self._restarts.append(now)
        while self._restarts[0] < now - self.period:
            self._restarts.popleft()
        if len(self._restarts) > self.intensity:
            self._end_child(child)
            count, last = len(self._restarts), child.last_exit
            sentence = (
                f"{count} restarts within {self.period:g} s, the last of {id!r}, exceed the "
                f"intensity of {self.intensity}; it had exited with {last}"
            )
            self._shut_down(ExitReason(ExitKind.GAVE_UP, sentence), actions)
            return
        child.phase = Phase.DOWN
        match self.strategy:
            case Strategy.ONE_FOR_ONE:
                affected = [id]
            case Strategy.REST_FOR_ONE:
                ids = list(self.children)
                affected = ids[ids.index(id) :]
            case Strategy.ONE_FOR_ALL:
                affected = list(self.children)
            case _:
                assert_never(self.strategy)
        stops = deque(reversed([other for other in affected if other != id]))
        self._run(_Operation(_Goal.RESTART, stops, deque(affected), id), actions)

    # --- reports on children ---------------------------------------------------------

    def _started(self, id: str, actions: list[ev.Action]) -> None:
        child = self.children.get(id)
        if child and child.phase is Phase.STARTING:
            child.phase = Phase.RUNNING
            self._advance(actions)

    def _exited(self, id: str, reason: ExitReason, now: float, actions: list[ev.Action]) -> None:
        child = self.children.get(id)
        if child is None:
            return
        child.last_exit = reason
        match child.phase:
            case Phase.STARTING:
                child.phase = Phase.DOWN
                self._start_failed(child, reason, actions)
            case Phase.STOPPING:
                child.phase = Phase.DOWN
                self._advance(actions)
            case Phase.RUNNING if self._operation is not None:
                # It stays RUNNING until the operation is to stop it and finds it dead, or the
                # backlog is handled.
                self._backlog.append(ev.Exited(id, reason))
            case Phase.RUNNING:
                self._ended_by_itself(child, reason, now, actions)
            case Phase.DOWN | Phase.RETRYING:
                pass  # stale
            case _:
                assert_never(child.phase)

    def _ended_by_itself(
        self, child: Child, reason: ExitReason, now: float, actions: list[ev.Action]
    ) -> None:
        match child.spec.restart:
            case Restart.PERMANENT:
                self._restart(child, now, actions)
                return
            case Restart.TRANSIENT if not reason.is_normal:
                self._restart(child, now, actions)
                return
            case Restart.TRANSIENT | Restart.TEMPORARY:
                self._end_child(child)
            case _:
                assert_never(child.spec.restart)
        if not child.spec.significant or self.auto_shutdown is AutoShutdown.NEVER:
            return
        active = any(
            other.spec.significant and other.phase is not Phase.DOWN
            for other in self.children.values()
        )
        if self.auto_shutdown is AutoShutdown.ANY_SIGNIFICANT or not active:
            sentence = f"significant child {child.spec.id!r} ended"
            self._shut_down(ExitReason(ExitKind.SHUTDOWN, sentence), actions)

    def _start_failed(self, child: Child, reason: ExitReason, actions: list[ev.Action]) -> None:
        operation = self._operation
        assert operation is not None
        id = child.spec.id
        sentence = f"Child {id!r} failed to start: {reason}"
        match operation.goal:
            case _Goal.BOOT:
                self._shut_down(ExitReason(ExitKind.CRASHED, sentence, reason.error), actions)
            case _Goal.RESTART:
                child.phase = Phase.RETRYING
                actions.append(ev.Retry(id))
                self._operation = None
            case _Goal.ADD | _Goal.REVIVE:
                if operation.goal is _Goal.ADD or child.spec.restart is Restart.TEMPORARY:
                    del self.children[id]
                actions.append(ev.Answer(operation.token, id, "start_failed", sentence))
                self._operation = None
            case _Goal.SHUTDOWN:
                pass  # it ended before its turn to be stopped
            case _Goal.REMOVE:
                raise AssertionError("removing starts nothing")
            case _:
                assert_never(operation.goal)

    # --- the operation ---------------------------------------------------------------

    def _run(self, operation: _Operation, actions: list[ev.Action]) -> None:
        self._operation = operation
        self._advance(actions)

    def _advance(self, actions: list[ev.Action]) -> None:
        """Takes the operation's next step, or finishes it."""
        operation = self._operation
        if operation is None:
            return
        for id in _drain(operation.stops):
            child = self.children[id]
            if child.phase is Phase.RUNNING and self._take_exit(id):
                child.phase = Phase.DOWN
            if child.phase in (Phase.STARTING, Phase.RUNNING):
                child.phase = Phase.STOPPING
                actions.append(ev.Halt(id, child.spec.seconds_to_stop))
            if child.phase is Phase.STOPPING:
                return
            child.phase = Phase.DOWN
            if operation.goal is _Goal.RESTART:
                self._end_child(child)
        for id in _drain(operation.starts):
            if id not in self.children:
                continue  # a temporary child that the restart stopped
            child = self.children[id]
            if child.phase is Phase.DOWN:
                child.phase = Phase.STARTING
                restarting = operation.goal is _Goal.RESTART
                child.restarts += restarting
                actions.append(ev.Start(child.spec, restarting))
            if child.phase is Phase.STARTING:
                return
        self._finish(operation, actions)

    def _finish(self, operation: _Operation, actions: list[ev.Action]) -> None:
        self._operation = None
        match operation.goal:
            case _Goal.BOOT:
                actions.append(ev.Booted())
            case _Goal.RESTART:
                pass
            case _Goal.ADD | _Goal.REVIVE:
                actions.append(ev.Answer(operation.token, operation.target))
            case _Goal.REMOVE:
                del self.children[operation.target]
                actions.append(ev.Answer(operation.token, operation.target))
            case _Goal.SHUTDOWN:
                self.ended = True
                self._backlog.clear()
                actions.append(ev.Exit(operation.reason))
            case _:
                assert_never(operation.goal)

    def _take_exit(self, id: str) -> bool:
        """Removes the child's exit from the backlog; returns whether there was one."""
        for event in self._backlog:
            if isinstance(event, ev.Exited) and event.id == id:
                self._backlog.remove(event)
                return True
        return False

    def _end_child(self, child: Child) -> None:
        child.phase = Phase.DOWN
        if child.spec.restart is Restart.TEMPORARY:
            self.children.pop(child.spec.id, None)


_STOPPING = ("stopping", "The supervisor is stopping.")


def _stopping(event: _Request) -> ev.Answer:
    id = event.spec.id if isinstance(event, ev.Add) else event.id
    return ev.Answer(event.token, id, *_STOPPING)


def _drain(ids: deque[str]) -> Iterator[str]:
    """Yields each id, which stays in the queue until the next one is asked for."""
    while ids:
        yield ids[0]
        if ids:
            ids.popleft()
