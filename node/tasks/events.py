"""The events and actions of a task machine."""

from __future__ import annotations

import msgspec

from manta.protocol.node import Assignment, Instance, TaskEnded, TaskError, TaskStarted
from manta.protocol.states import AttemptState
from manta.protocol.values import Payload

# Events.


class Assigned(msgspec.Struct, frozen=True):
    """Run it; it waited `queued` seconds for a place."""

    assignment: Assignment
    queued: float = 0.0
    at: float = 0.0
    """When it was admitted; the same instance with another time is to be run once more."""


class Prepared(msgspec.Struct, frozen=True):
    """Answers Prepare of that session."""

    session: str


class PrepareFailed(msgspec.Struct, frozen=True):
    """`platform`: the task's code is not to blame."""

    session: str
    error: TaskError
    platform: bool = False


class Ready(msgspec.Struct, frozen=True):
    """The runtime takes attempts."""

    session: str


class Failed(msgspec.Struct, frozen=True):
    """The module cannot be run, or the runtime cannot be started (`platform`)."""

    session: str
    error: TaskError
    platform: bool = False


class Returned(msgspec.Struct, frozen=True):
    """The attempt is over; `error` is None when its code returned."""

    session: str
    instance: Instance
    output: Payload | None = None
    error: TaskError | None = None
    computing: float = 0.0
    moving: float = 0.0


class Exited(msgspec.Struct, frozen=True):
    """The runtime's process ended. `sentence` says why, where the code does not.

    `platform`: neither the task's code nor its image is to blame.
    """

    session: str
    code: int | None
    stderr_tail: str = ""
    sentence: str = ""
    platform: bool = False


class Disconnected(msgspec.Struct, frozen=True):
    """The runtime's connection closed: its process ends soon, or is killed."""

    session: str
    sentence: str


class Revoked(msgspec.Struct, frozen=True):
    """The manager no longer wants the attempt."""

    instance: Instance
    reason: str = "the manager cancelled it"


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
    Assigned
    | Prepared
    | PrepareFailed
    | Ready
    | Failed
    | Returned
    | Exited
    | Disconnected
    | Overrun
    | Revoked
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


class CancelAttempt(msgspec.Struct, frozen=True):
    session: str
    instance: Instance
    reason: str


class KillRuntime(msgspec.Struct, frozen=True):
    """Kill it with all that it started; later events of the session are ignored."""

    session: str


class Report(msgspec.Struct, frozen=True):
    """Append the entry to the journal. After a TaskEnded the attempt's place is free."""

    entry: TaskStarted | TaskEnded


TaskAction = Prepare | StartRuntime | RunAttempt | CancelAttempt | KillRuntime | Report
