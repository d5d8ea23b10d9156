"""One task's life on a node: a runtime that is started once, and the attempts run in it.

Its events and actions are in `events`. The machine belongs to one task supervisor: one lane
of a task. Attempts run one after another, and the end of each that was assigned is reported
exactly once. A runtime has a session of its own, so that what an old one still says is ignored.

| state     | while                          | leaves when                                     |
|-----------|--------------------------------|-------------------------------------------------|
| COLD      | no runtime                     | assigned -> PREPARING                           |
| PREPARING | module, datasets are fetched   | prepared -> STARTING; failed -> COLD            |
| STARTING  | the runtime imports packages   | ready -> RUNNING or WARM; failed, gone -> COLD  |
| WARM      | the runtime waits              | assigned -> RUNNING; gone -> COLD               |
| RUNNING   | an attempt runs                | ended -> RUNNING or WARM; gone -> COLD          |
| STOPPED   | final                          |                                                 |

A failure in COLD, PREPARING or STARTING is that of the attempt they were for; the next one
that waits tries again. An attempt that is cancelled or out of time is asked to end, and after
`grace` seconds its runtime is killed. Each step up to WARM has a time limit of its own.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterable
from enum import Enum

import msgspec

from manta.node.runners.interface import RuntimeExit
from manta.node.scheduling.reservations import Start
from manta.node.task_server.messages import AttemptExited, CancelAttempt, SessionLost
from manta.node.tasks.events import (
    Failed,
    Forbidden,
    KillRuntime,
    Overrun,
    PlaneLost,
    Prepare,
    Prepared,
    Ready,
    Report,
    Revoked,
    RunAttempt,
    StartRuntime,
    Stop,
    TaskAction,
    TaskEvent,
    Ticked,
)
from manta.protocol.node import (
    Assignment,
    Instance,
    TaskEnded,
    TaskError,
    TaskStarted,
    Timings,
)
from manta.protocol.states import AttemptState
from manta.protocol.values import Payload

_REMEMBERED = 100


class State(Enum):
    COLD = "cold"
    PREPARING = "preparing"
    STARTING = "starting"
    WARM = "warm"
    RUNNING = "running"
    STOPPED = "stopped"


class Limits(msgspec.Struct, frozen=True):
    """Seconds."""

    prepare: float = 600.0
    start: float = 120.0
    grace: float = 5.0
    """From asking an attempt to end, or from a closed connection, to killing its runtime."""


class _Attempt(msgspec.Struct):
    assignment: Assignment
    queued: float
    at: float
    preparing: float = 0.0
    starting: float = 0.0
    loading: float = 0.0
    began: float = 0.0
    verdict: tuple[AttemptState, TaskError | None] | None = None
    """How it ends, whatever it reports: it was asked to end."""

    @property
    def instance(self) -> Instance:
        return self.assignment.instance


class TaskMachine:
    """`now` is monotonic, `wall` seconds since the epoch at the same moment."""

    def __init__(self, name: str, limits: Limits | None = None) -> None:
        self.state = State.COLD
        self.session = ""
        self.deadline: float | None = None
        self._name = name
        self._limits = limits or Limits()
        self._sessions = 0
        self._attempt: _Attempt | None = None
        self._waiting: deque[_Attempt] = deque()
        self._ended: dict[tuple[Instance, float], None] = {}
        """The latest, of which it may be told again."""
        self._since = 0.0
        self._lost = ""
        self._now = self._wall = 0.0
        self._actions: list[TaskAction] = []

    @property
    def current(self) -> Instance | None:
        """The attempt that runs: only its requests are served."""
        return self._attempt.instance if self._attempt and self.state is State.RUNNING else None

    @property
    def live(self) -> tuple[Instance, ...]:
        """Attempts that were assigned and whose end was not reported."""
        attempts = (self._attempt, *self._waiting) if self._attempt else tuple(self._waiting)
        return tuple(attempt.instance for attempt in attempts if attempt)

    def handle(self, event: TaskEvent, now: float, wall: float) -> list[TaskAction]:
        self._now, self._wall, self._actions = now, wall, []
        match event:
            case Start():
                self._assigned(event)
            case Revoked(instance):
                self._revoked(instance)
            case Forbidden(instance, error):
                self._forbidden(instance, error)
            case Stop(state, reason):
                self._stop(state, reason)
            case Ticked():
                self._ticked()
            case PlaneLost(instance, how):
                self._plane_lost(instance, how)
            case _ if event.session != self.session or self.state is State.STOPPED:
                pass  # of a runtime that is gone
            case Prepared():
                self._prepared()
            case Failed(_, error, platform):
                self._could_not_start(error, platform)
            case Ready():
                self._ready()
            case AttemptExited():
                self._returned(event)
            case RuntimeExit():
                self._exited(event)
            case SessionLost(_, sentence):
                self._disconnected(sentence)
            case Overrun(_, error):
                self._give_up(AttemptState.FAILED, error)
        return self._actions

    def _assigned(self, event: Start) -> None:
        instance = event.assignment.instance
        if instance in self.live or (instance, event.at) in self._ended:
            return  # told again: it was not known whether we had heard
        attempt = _Attempt(event.assignment, event.queued, event.at)
        if self.state is State.STOPPED:
            error = TaskError("NodeStopping", f"{instance} came when its runtime was stopping.")
            self._end(attempt, AttemptState.INTERRUPTED, error)
            return
        self._waiting.append(attempt)
        if self.state in (State.COLD, State.WARM):
            self._next()

    def _next(self) -> None:
        """Begin the next attempt that waits; nothing runs now."""
        if self._attempt is None and self._waiting:
            self._attempt = self._waiting.popleft()
        attempt = self._attempt
        if attempt is None:
            self.deadline = None
        elif self.state is State.WARM:
            self.state = State.RUNNING
            attempt.began = self._now
            timeout = attempt.assignment.timeout
            self.deadline = None if timeout is None else self._now + timeout
            self._actions.append(Report(TaskStarted(attempt.instance, self._wall)))
            self._actions.append(RunAttempt(self.session, attempt.assignment))
        elif self.state is State.COLD:
            self._sessions += 1
            self.session = f"{self._name}-{self._sessions}"
            self.state, self._since, self._lost = State.PREPARING, self._now, ""
            self.deadline = self._now + self._limits.prepare
            self._actions.append(Prepare(self.session, attempt.assignment))

    def _prepared(self) -> None:
        if self.state is not State.PREPARING:
            return
        if self._attempt is None and self._waiting:
            self._attempt = self._waiting.popleft()
        if self._attempt is None:  # revoked meanwhile
            self.state, self.session, self.deadline = State.COLD, "", None
            return
        self._attempt.preparing = self._now - self._since
        self.state, self._since = State.STARTING, self._now
        self.deadline = self._now + self._limits.start
        self._actions.append(StartRuntime(self.session, self._attempt.assignment))

    def _ready(self) -> None:
        if self.state is not State.STARTING:
            return
        if self._attempt is not None:
            self._attempt.starting = self._now - self._since
        self.state = State.WARM
        self._next()

    def _could_not_start(self, error: TaskError, platform: bool) -> None:
        if self.state not in (State.PREPARING, State.STARTING):
            return
        self._give_up(AttemptState.INTERRUPTED if platform else AttemptState.FAILED, error)

    def _returned(self, event: AttemptExited) -> None:
        attempt = self._attempt
        if self.state is not State.RUNNING or attempt is None or attempt.instance != event.instance:
            return
        error, output = event.error, event.output
        state = AttemptState.FAILED if error else AttemptState.FINISHED
        if event.platform:
            state = AttemptState.INTERRUPTED
        if attempt.verdict is not None:
            (state, error), output = attempt.verdict, None
        attempt.loading = event.loading
        self._end(attempt, state, error, output, event.computing, event.moving)
        self._attempt = None
        self.state = State.WARM
        if self._lost:  # its last words came after the connection had closed
            self._give_up(AttemptState.INTERRUPTED, None)
        else:
            self._next()

    def _exited(self, event: RuntimeExit) -> None:
        said = event.stderr_tail
        lines = tuple(said.splitlines()[-20:])
        sentence = event.sentence or _exit(event.code)
        if event.image:
            sentence += f" Its image is {event.image}."
        # 0: it got SIGTERM from elsewhere, since only the node is to end it.
        platform = event.platform or event.code == 0
        self._give_up(
            AttemptState.INTERRUPTED if platform else AttemptState.FAILED,
            TaskError("ProcessExited", sentence, said, lines),
        )

    def _disconnected(self, sentence: str) -> None:
        if self.state in (State.STARTING, State.RUNNING):
            self._lost = sentence
            limit = self._now + self._limits.grace
            self.deadline = limit if self.deadline is None else min(self.deadline, limit)
        elif self.state is State.WARM:
            self._give_up(AttemptState.INTERRUPTED, None)

    def _plane_lost(self, instance: Instance, how: str) -> None:
        if self.current == instance:
            self._give_up(AttemptState.INTERRUPTED, plane_lost(instance, how))

    def _revoked(self, instance: Instance) -> None:
        reason = "the manager cancelled it"
        error = TaskError("Cancelled", f"{instance} was ended: {reason}.")
        for attempt in self._waiting:
            if attempt.instance == instance:
                self._waiting.remove(attempt)
                self._end(attempt, AttemptState.CANCELLED, error)
                return
        if self._attempt is None or self._attempt.instance != instance:
            return
        if self.state is State.RUNNING:
            self._ask_to_end(AttemptState.CANCELLED, error, reason)
        else:  # what it began goes on: the next attempt is served sooner
            self._end(self._attempt, AttemptState.CANCELLED, error)
            self._attempt = self._waiting.popleft() if self._waiting else None

    def _forbidden(self, instance: Instance, error: TaskError) -> None:
        for attempt in self._waiting:
            if attempt.instance == instance:
                self._waiting.remove(attempt)
                self._end(attempt, AttemptState.REFUSED, error)
                return
        if self._attempt is not None and self._attempt.instance == instance:
            self._attempt.verdict = (AttemptState.REFUSED, error)
            self._give_up(AttemptState.REFUSED, error)

    def _ask_to_end(
        self, state: AttemptState, error: TaskError, reason: str, *, stacks: bool = False
    ) -> None:
        assert self._attempt is not None
        if self._attempt.verdict is None:
            self._attempt.verdict = (state, error)
            self.deadline = self._now + self._limits.grace
            cancel = CancelAttempt(self.session, self._attempt.instance, reason, stacks)
            self._actions.append(cancel)

    def _stop(self, state: AttemptState, reason: str) -> None:
        if self.state is State.STOPPED:
            return
        for attempt in [self._attempt, *self._waiting]:
            if attempt is not None:
                error = TaskError("Stopped", f"{attempt.instance} was ended: {reason}.")
                verdict = attempt.verdict or (state, error)
                self._end(attempt, *verdict)
        self._attempt = None
        self._waiting.clear()
        self._kill()
        self.state = State.STOPPED

    def _ticked(self) -> None:
        if self.deadline is None or self._now < self.deadline or self.state is State.STOPPED:
            return
        attempt = self._attempt
        name = str(attempt.instance) if attempt else "a task"
        if self._lost:
            sentence = f"{name} was ended: {self._lost}"
            self._give_up(AttemptState.INTERRUPTED, TaskError("RuntimeLost", sentence))
        elif self.state is State.PREPARING:
            sentence = (
                f"The module and datasets of {name} were not ready within "
                f"{self._limits.prepare:g} s: the manager could not be reached, or is slow."
            )
            self._give_up(AttemptState.INTERRUPTED, TaskError("PrepareTimeout", sentence))
        elif self.state is State.STARTING:
            sentence = (
                f"The process of {name} was not ready within {self._limits.start:g} s: the node is "
                "overloaded, or what the module begins by importing takes too long."
            )
            self._give_up(AttemptState.FAILED, TaskError("StartTimeout", sentence))
        elif attempt is not None and attempt.verdict is not None:  # it would not end
            self._give_up(*attempt.verdict)
        elif attempt is not None:
            timeout = attempt.assignment.timeout
            sentence = (
                f"{name} ran longer than its timeout of {timeout:g} s: it was ended; raise "
                "`timeout` in its Task, or give it less to do."
            )
            error = TaskError("Timeout", sentence)
            self._ask_to_end(AttemptState.TIMEOUT, error, "it ran out of time", stacks=True)

    def _give_up(self, state: AttemptState, error: TaskError | None) -> None:
        """End the current attempt and the runtime; go on with the next."""
        attempt = self._attempt
        self._kill()
        self.state = State.COLD
        self._attempt = None
        if attempt is not None:
            verdict = attempt.verdict or (state, error)
            running = self._now - attempt.began if attempt.began else 0.0
            self._end(attempt, *verdict, computing=running)
        self._next()

    def _kill(self) -> None:
        if self.state not in (State.COLD, State.STOPPED):
            self._actions.append(KillRuntime(self.session))
        self.session, self.deadline, self._lost = "", None, ""

    def _end(
        self,
        attempt: _Attempt,
        state: AttemptState,
        error: TaskError | None,
        output: Payload | None = None,
        computing: float = 0.0,
        moving: float = 0.0,
    ) -> None:
        self._ended[attempt.instance, attempt.at] = None
        if len(self._ended) > _REMEMBERED:
            del self._ended[next(iter(self._ended))]
        timings = Timings(
            attempt.queued,
            attempt.preparing,
            attempt.starting,
            computing,
            moving,
            attempt.loading,
        )
        ended = TaskEnded(attempt.instance, state, self._wall, output, error, timings)
        self._actions.append(Report(ended))


def plane_lost(instance: Instance, how: str = "") -> TaskError:
    """The error of an attempt whose plane has ended, or cannot keep what it said, as `how` says."""
    sentence = (
        f"{instance} was ended: {how}; see the node's log."
        if how
        else f"{instance} was ended: the node's plane, through which it exchanges with others, has "
        "ended, and what it said may be lost; see the node's log."
    )
    return TaskError("PlaneLost", sentence)


def interrupted(instances: Iterable[Instance], wall: float, why: str) -> list[TaskEnded]:
    """Returns the ends of attempts whose daemon is gone."""
    error = TaskError("Interrupted", why)
    state = AttemptState.INTERRUPTED
    return [TaskEnded(instance, state, wall, error=error) for instance in instances]


def _exit(code: int | None) -> str:
    if code is None:
        return "The task's process is gone, and nobody knows how it ended."
    if code == 0:
        return "The task's process was told to end, by somebody else than the node."
    if code > 0:
        return (
            f"The task's process exited with code {code} before the task had ended: look for "
            "sys.exit or os._exit in its code."
        )
    name = signal_name(-code)
    if -code == signal.SIGKILL:
        return f"The task's process was killed ({name}): most often, memory ran out."
    return f"The task's process crashed ({name}): a native library that it uses failed."


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
