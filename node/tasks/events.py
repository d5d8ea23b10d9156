"""The events and actions of a task machine.

What a runner, the LightService or the node's supervisor tells is an event as it is.
"""

from __future__ import annotations

import msgspec

from manta.node.runners.interface import RuntimeExit
from manta.node.scheduling.reservations import Start
from manta.node.task_server.messages import AttemptExited, CancelAttempt, SessionLost
from manta.protocol.node import Assignment, Instance, TaskEnded, TaskError, TaskStarted
from manta.protocol.states import AttemptState

# Events.


class Prepared(msgspec.Struct, frozen=True):
    """Answers Prepare of that session."""

    session: str


class Ready(msgspec.Struct, frozen=True):
    """The runtime takes attempts."""

    session: str


class Failed(msgspec.Struct, frozen=True):
    """The module cannot be had or run, or its runtime cannot be started.

    `platform`: the task's code is not to blame.
    """

    session: str
    error: TaskError
    platform: bool = False


class Revoked(msgspec.Struct, frozen=True):
    """The manager no longer wants the attempt."""

    instance: Instance


class Forbidden(msgspec.Struct, frozen=True):
    """The node's owner does not want the attempt: it ends at once, with this error."""

    instance: Instance
    error: TaskError


class PlaneLost(msgspec.Struct, frozen=True):
    """The plane has ended to which the attempt was connected: what it said may be lost. `how` says
    why else it is."""

    instance: Instance
    how: str = ""


class Overrun(msgspec.Struct, frozen=True):
    """The runtime exceeds a limit: the attempt fails with this error, and the runtime ends."""

    session: str
    error: TaskError


class Stop(msgspec.Struct, frozen=True):
    """The swarm is over or the node stops: end all attempts as `state` and the runtime."""

    state: AttemptState
    reason: str


class Ticked(msgspec.Struct, frozen=True):
    """`deadline` has come."""


TaskEvent = (
    Start
    | Prepared
    | Ready
    | Failed
    | AttemptExited
    | RuntimeExit
    | SessionLost
    | Overrun
    | PlaneLost
    | Revoked
    | Forbidden
    | Stop
    | Ticked
)

# Actions.


class Prepare(msgspec.Struct, frozen=True):
    """Fetch the module and look for the datasets."""

    session: str
    assignment: Assignment


class StartRuntime(msgspec.Struct, frozen=True):
    session: str
    assignment: Assignment


class RunAttempt(msgspec.Struct, frozen=True):
    session: str
    assignment: Assignment


class KillRuntime(msgspec.Struct, frozen=True):
    """Kill it with all that it started; later events of the session are ignored."""

    session: str


class Report(msgspec.Struct, frozen=True):
    """Append the entry to the journal. After a TaskEnded the attempt's place is free."""

    entry: TaskStarted | TaskEnded


TaskAction = Prepare | StartRuntime | RunAttempt | CancelAttempt | KillRuntime | Report
