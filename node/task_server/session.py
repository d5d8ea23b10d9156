"""What a TaskSupervisor and the LightService say to each other about one runtime.

A *runtime* is a task process that outlives rounds; a *round* is one attempt of one
instance, run in it. Requests of the task's code reach the TaskSupervisor as `Request`
with a reply to be filled in; everything else that the runtime does arrives as an event.
Values are payloads: what is large lies in the node's memory depot under its digest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from manta.actors import Ref
    from manta.protocol.node import Instance, TaskError
    from manta.protocol.values import Payload


class RoundBrief(msgspec.Struct, frozen=True):
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


class OpenSession(msgspec.Struct, frozen=True):
    """Answered with SessionOpened."""

    session: str
    owner: Ref


class SessionOpened(msgspec.Struct, frozen=True):
    token: str
    socket: str
    """Path of the Unix socket; its folder is what a container mounts."""


# To `Sessions.tell`, from any thread: nothing is lost while the service is restarted.


class CloseSession(msgspec.Struct, frozen=True):
    session: str


class RunRound(msgspec.Struct, frozen=True):
    session: str
    brief: RoundBrief


class CancelRound(msgspec.Struct, frozen=True):
    """Asks the round's code to end, by SIGTERM; who says so kills a runtime that does not."""

    session: str
    instance: Instance
    reason: str


# From the LightService to the session's owner.


class RuntimeReady(msgspec.Struct, frozen=True):
    """The module was imported (or will be, anew each round); rounds may be given."""

    session: str
    mode: str
    """fork, resident or spawn."""
    why: str = ""
    """What makes it spawn."""


class RuntimeFailed(msgspec.Struct, frozen=True):
    """The module could not be imported or has nothing to run."""

    session: str
    error: TaskError


class Request(msgspec.Struct, frozen=True):
    """One call of the task's code. `body` is one of the structs below."""

    session: str
    instance: Instance
    body: Any
    reply: Any
    """`.set(value)` or `.fail(kind, sentence)`, once, from any thread."""


class Output(msgspec.Struct, frozen=True):
    """Lines that the round wrote; `stream` is stdout, stderr or a logging level."""

    session: str
    instance: Instance
    stream: str
    lines: tuple[tuple[float, str], ...]


class RoundEnded(msgspec.Struct, frozen=True):
    """`error` is None when it returned. All its output and requests came before."""

    session: str
    instance: Instance
    output: Payload | None
    error: TaskError | None
    computing: float
    """Seconds in the task's code, waiting for values left out."""
    moving: float
    """Seconds that the task's code waited for the node."""


class SessionLost(msgspec.Struct, frozen=True):
    """The runtime's connection closed without being asked to."""

    session: str
    sentence: str


# Bodies of requests, and what answers them.


class GetGlobal(msgspec.Struct, frozen=True):
    """-> Payload | None"""

    tag: str


class SetGlobal(msgspec.Struct, frozen=True):
    """-> None"""

    tag: str
    value: Payload


class ListGlobalTags(msgspec.Struct, frozen=True):
    """-> list[str]"""


class AddResult(msgspec.Struct, frozen=True):
    """-> None"""

    tag: str
    value: Payload


class SelectResults(msgspec.Struct, frozen=True):
    """-> list[ResultEntry], blobs already in the memory depot"""

    tag: str
    iteration: int | None


class ScheduleNextIteration(msgspec.Struct, frozen=True):
    """-> None"""

    node_ids: tuple[str, ...]
    alias: str | None


class StopSwarm(msgspec.Struct, frozen=True):
    """-> None"""


class LogMetrics(msgspec.Struct, frozen=True):
    """-> None"""

    metrics: dict[str, float]
    step: int | None


class Progress(msgspec.Struct, frozen=True):
    """-> None"""

    fraction: float
    message: str


class GetState(msgspec.Struct, frozen=True):
    """Kept on the node for the swarm -> Payload | None"""

    key: str


class SetState(msgspec.Struct, frozen=True):
    """-> None"""

    key: str
    value: Payload


class GetResources(msgspec.Struct, frozen=True):
    """-> dict, as `Local.get_resources` documents it"""


class GetNetworkQuality(msgspec.Struct, frozen=True):
    """-> a number from 0 to 1"""


class GetPerformance(msgspec.Struct, frozen=True):
    """-> dict, as `Local.get_performance_metrics` documents it"""


# What instances say to each other: `timeout` in seconds.


class Broadcast(msgspec.Struct, frozen=True):
    """-> None"""

    tag: str
    value: Payload


class GetBroadcast(msgspec.Struct, frozen=True):
    """-> Payload"""

    tag: str
    timeout: float


class Send(msgspec.Struct, frozen=True):
    """`to` is a node's id or alias -> None"""

    to: str
    tag: str
    value: Payload


class ResolveNode(msgspec.Struct, frozen=True):
    """`name` is a node's id or alias -> its id"""

    name: str


class Receive(msgspec.Struct, frozen=True):
    """The round's message of that number, from 0, from a node, by its id, under a tag; asked
    again it is the same one -> Payload"""

    source: str
    tag: str
    number: int
    timeout: float


class ReturnClaims(msgspec.Struct, frozen=True):
    """The round is over, and received no more than so many messages -> None"""

    source: str
    tag: str
    received: int


class Contribute(msgspec.Struct, frozen=True):
    """-> None"""

    number: int
    kind: str
    to: int | None
    value: Payload | None


class Collect(msgspec.Struct, frozen=True):
    """`partial`: when the time is over, what is there -> list[Contribution], blobs as above"""

    number: int
    kind: str
    ranks: tuple[int, ...]
    enough: int | None
    partial: bool
    on_loss: str
    timeout: float


class Lock(msgspec.Struct, frozen=True):
    """-> None"""

    name: str
    timeout: float


class Unlock(msgspec.Struct, frozen=True):
    """-> None"""

    name: str


class ListPeers(msgspec.Struct, frozen=True):
    """-> list of [rank, node_id, node_alias, share]"""


class Checkpoint(msgspec.Struct, frozen=True):
    """-> None"""

    value: Payload


class Restore(msgspec.Struct, frozen=True):
    """-> Payload | None"""
