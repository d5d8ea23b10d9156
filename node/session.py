"""What a TaskSupervisor and the LightService say to each other about one runtime.

A *runtime* is a task process that outlives rounds; a *round* is one attempt of one
instance, run in it. Requests of the task's code reach the TaskSupervisor as `Request`
with a reply to be filled in; everything else that the runtime does arrives as an event.
Values are payloads: what is large lies in the node's memory depot under its digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manta.actors import Ref
    from manta.protocol.node import Instance, TaskError
    from manta.protocol.values import Payload


@dataclass(frozen=True)
class RoundBrief:
    """All that the runtime must know to run one round."""

    instance: Instance
    swarm_name: str
    task_id: str
    node_id: str
    node_alias: str
    size: int
    seed: int
    class_name: str | None
    datasets: dict[str, str]
    """Name -> path as the task sees it."""
    timeout: float | None


# To the LightService.


@dataclass(frozen=True)
class OpenSession:
    """Answered with SessionOpened."""

    session: str
    owner: Ref


@dataclass(frozen=True)
class SessionOpened:
    token: str
    socket: str
    """Path of the Unix socket; its folder is what a container mounts."""


@dataclass(frozen=True)
class CloseSession:
    session: str


@dataclass(frozen=True)
class RunRound:
    session: str
    brief: RoundBrief


@dataclass(frozen=True)
class CancelRound:
    """Ends the round's process (a forked child, or the whole runtime where it runs in it)."""

    session: str
    instance: Instance
    reason: str


# From the LightService to the session's owner.


@dataclass(frozen=True)
class RuntimeReady:
    """The module was imported (or will be, anew each round); rounds may be given."""

    session: str
    mode: str
    """fork, resident or spawn."""
    why: str = ""
    """What makes it spawn."""


@dataclass(frozen=True)
class RuntimeFailed:
    """The module could not be imported or has nothing to run."""

    session: str
    error: TaskError


@dataclass(frozen=True)
class Request:
    """One call of the task's code. `body` is one of the structs below."""

    session: str
    instance: Instance
    body: Any
    reply: Any
    """`.set(value)` or `.fail(kind, sentence)`, once, from any thread."""


@dataclass(frozen=True)
class Output:
    """Lines that the round wrote; `stream` is stdout, stderr or a logging level."""

    session: str
    instance: Instance
    stream: str
    lines: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class RoundEnded:
    """`error` is None when it returned. All its output and requests came before."""

    session: str
    instance: Instance
    output: Payload | None
    error: TaskError | None
    computing: float
    """Seconds in the task's code, waiting for values left out."""
    moving: float
    """Seconds that the task's code waited for the node."""


@dataclass(frozen=True)
class SessionLost:
    """The runtime's connection closed without being asked to."""

    session: str
    sentence: str


# Bodies of requests, and what answers them.


@dataclass(frozen=True)
class GetGlobal:
    """-> Payload | None"""

    tag: str


@dataclass(frozen=True)
class SetGlobal:
    """-> None"""

    tag: str
    value: Payload


@dataclass(frozen=True)
class ListGlobalTags:
    """-> list[str]"""


@dataclass(frozen=True)
class AddResult:
    """-> None"""

    tag: str
    value: Payload


@dataclass(frozen=True)
class SelectResults:
    """-> list[ResultEntry], blobs already in the memory depot"""

    tag: str
    iteration: int | None


@dataclass(frozen=True)
class ScheduleNextIteration:
    """-> None"""

    node_ids: tuple[str, ...]
    alias: str | None


@dataclass(frozen=True)
class StopSwarm:
    """-> None"""


@dataclass(frozen=True)
class LogMetrics:
    """-> None"""

    metrics: dict[str, float]
    step: int | None


@dataclass(frozen=True)
class Progress:
    """-> None"""

    fraction: float
    message: str


@dataclass(frozen=True)
class GetState:
    """Kept on the node for the swarm -> Payload | None"""

    key: str


@dataclass(frozen=True)
class SetState:
    """-> None"""

    key: str
    value: Payload


@dataclass(frozen=True)
class GetResources:
    """-> dict, as `Local.get_resources` documents it"""


@dataclass(frozen=True)
class GetPerformance:
    """-> dict, as `Local.get_performance_metrics` documents it"""
