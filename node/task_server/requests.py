"""What a task's code may ask of its node, each request declared once.

A request is decoded into the very object that the task's supervisor matches on: its fields are
those of `manta.light.context.Context.call`, its kind the class's name in snake case. Whatever
is not of these types, in bounds, costs the task its connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from manta.light.wire import INLINE_LIMIT
from manta.protocol.spec import Name

if TYPE_CHECKING:
    from manta.protocol.node import Instance
    from manta.protocol.values import Payload

Number = Annotated[int, Meta(ge=1, lt=2**53)]
Count = Annotated[int, Meta(ge=0, lt=2**31)]
Text = Annotated[str, Meta(max_length=64 * 1024)]
Wait = Annotated[float, Meta(gt=0, le=366 * 86400)]
"""Seconds for which a task is willing to wait."""

if TYPE_CHECKING:
    Value = Payload
else:
    # As it arrives: an encoded value, or the number of the memory that it was written into.
    # The server puts the payload in its place before anybody else sees the request.
    Value = Annotated[bytes, Meta(max_length=INLINE_LIMIT)] | Number


class FromTask(
    msgspec.Struct,
    frozen=True,
    tag_field="k",
    tag=lambda name: re.sub("(?<!^)(?=[A-Z])", "_", name).lower(),
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Root of all messages of tasks; the tag is the class's name in snake case."""


class Numbered(FromTask, frozen=True, kw_only=True):
    n: Number
    """Counts the requests of a channel."""


# Globals and results.


class GetGlobal(Numbered, frozen=True):
    """-> Payload | None"""

    tag: Name


class SetGlobal(Numbered, frozen=True):
    """-> None"""

    tag: Name
    value: Value


class ListGlobalTags(Numbered, frozen=True):
    """-> list[str]"""


class AddResult(Numbered, frozen=True):
    """-> None"""

    tag: Name
    value: Value


class SelectResults(Numbered, frozen=True):
    """-> list[ResultEntry], blobs already in the memory depot"""

    tag: Name
    iteration: Annotated[int, Meta(ge=0, le=2**53)] | None


# The swarm's course.


class ScheduleNextIteration(Numbered, frozen=True):
    """-> None"""

    node_ids: Annotated[tuple[Name, ...], Meta(max_length=100_000)]
    alias: Name | None


class StopSwarm(Numbered, frozen=True):
    """-> None"""


class LogMetrics(Numbered, frozen=True):
    """-> None"""

    metrics: dict[Name, float]
    step: int | None


class Progress(Numbered, frozen=True):
    """-> None"""

    fraction: Annotated[float, Meta(ge=0, le=1)]
    message: Text


# The node.


class GetState(Numbered, frozen=True):
    """Kept on the node for the swarm -> Payload | None"""

    key: Name


class SetState(Numbered, frozen=True):
    """-> None"""

    key: Name
    value: Value


class GetResources(Numbered, frozen=True):
    """-> dict, as `Local.get_resources` documents it"""


class GetPerformance(Numbered, frozen=True):
    """-> dict, as `Local.get_performance_metrics` documents it"""


class GetNetworkQuality(Numbered, frozen=True):
    """-> a number from 0 to 1"""


# What instances say to each other.


class Broadcast(Numbered, frozen=True):
    """-> None"""

    tag: Name
    value: Value


class GetBroadcast(Numbered, frozen=True):
    """-> Payload"""

    tag: Name
    timeout: Wait


class Send(Numbered, frozen=True):
    """`to` is a node's id or alias -> None"""

    to: Name
    tag: Name
    value: Value
    timeout: Wait = 300.0


class OpenExchange(Numbered, frozen=True):
    """A connection to the plane, over which the attempt exchanges with others -> a Descriptor"""


class OpenMesh(Numbered, frozen=True):
    """A connection to a process that makes the attempt a peer of a mesh -> a Descriptor"""


class ResolveNode(Numbered, frozen=True):
    """`name` is a node's id or alias -> its id"""

    name: Name


class Receive(Numbered, frozen=True):
    """The message of that number, from 0, that the attempt receives from a node, by its id, under a
    tag; asked again it is the same one -> Payload"""

    source: Name
    tag: Name
    number: Count
    timeout: Wait


class ReturnClaims(Numbered, frozen=True):
    """The attempt is over and received only so many messages -> None"""

    source: Name
    tag: Name
    received: Count


class Contribute(Numbered, frozen=True):
    """-> None"""

    number: Count
    kind: Name
    to: Count | None
    value: Value | None = None


class Collect(Numbered, frozen=True):
    """`partial`: at the timeout, whatever is there -> list[Contribution], blobs as above"""

    number: Count
    kind: Name
    ranks: Annotated[tuple[Count, ...], Meta(max_length=100_000)]
    enough: Count | None
    partial: bool
    on_loss: Literal["raise", "continue"]
    timeout: Wait


class Lock(Numbered, frozen=True):
    """-> None"""

    name: Name
    timeout: Wait


class Unlock(Numbered, frozen=True):
    """-> None"""

    name: Name


class ListPeers(Numbered, frozen=True):
    """-> list of [rank, node_id, node_alias, share]"""


class Checkpoint(Numbered, frozen=True):
    """-> None"""

    value: Value


class Restore(Numbered, frozen=True):
    """-> Payload | None"""


Body = (
    GetGlobal
    | SetGlobal
    | ListGlobalTags
    | AddResult
    | SelectResults
    | ScheduleNextIteration
    | StopSwarm
    | LogMetrics
    | Progress
    | GetState
    | SetState
    | GetResources
    | GetPerformance
    | GetNetworkQuality
    | Broadcast
    | GetBroadcast
    | Send
    | OpenExchange
    | OpenMesh
    | ResolveNode
    | Receive
    | ReturnClaims
    | Contribute
    | Collect
    | Lock
    | Unlock
    | ListPeers
    | Checkpoint
    | Restore
)

WRITES = (
    SetGlobal
    | AddResult
    | ScheduleNextIteration
    | LogMetrics
    | Progress
    | Broadcast
    | Send
    | Receive
    | Contribute
    | Lock
    | Checkpoint
)
"""Requests that add to the journal of a task that does not end: they wait while that is full."""

# How a request reaches the task's supervisor.

Error = tuple[str, str]
"""Kind and sentence."""


class Reply:
    """Takes the answer to a request, from any thread. Only the first call counts."""

    def __init__(self, done: Callable[[Any, Error | None], None]) -> None:
        self._done = [done]  # list.pop is atomic
        self.abandoned = False
        """Whether a signal took the task out of the request: nobody waits for the answer."""

    def set(self, value: Any = None) -> None:
        """Answers with the outcome, in the form that the request's docstring names."""
        self._answer(value, None)

    def fail(self, kind: str, sentence: str) -> None:
        """Refuses; `kind` names an exception of `manta.light.errors`, else it is RequestFailed."""
        self._answer(None, (kind, sentence))

    def _answer(self, value: Any, error: Error | None) -> None:
        try:
            done = self._done.pop()
        except IndexError:
            return
        done(value, error)


class Request(msgspec.Struct, frozen=True):
    """One call of the task's code, for its supervisor to answer by `reply`, once."""

    session: str
    instance: Instance
    body: Body
    reply: Reply
