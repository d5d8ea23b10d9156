"""What the node accepts from tasks, as types: `manta.light.wire` says what they mean.

Whatever is not of these types, in bounds, costs the task its connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

from manta.light.wire import INLINE_LIMIT, MAX_END, MAX_LOG_TEXT, BrokenFrame

Number = Annotated[int, Meta(ge=1, lt=2**53)]
Count = Annotated[int, Meta(ge=0, lt=2**31)]
Text = Annotated[str, Meta(max_length=64 * 1024)]
Name = Annotated[str, Meta(min_length=1, max_length=1024)]
Value = Annotated[bytes, Meta(max_length=INLINE_LIMIT)] | Number
"""An encoded value, or the number of the memory that it was written into."""
Failure = tuple[Name, Text, Text]
"""Kind, sentence, traceback."""
Seconds = Annotated[float, Meta(ge=0)]


class FromTask(
    msgspec.Struct, frozen=True, tag_field="k", forbid_unknown_fields=True, omit_defaults=True
):
    """Root of the messages."""


# Of the runtime.


class Runtime(FromTask, frozen=True, tag="runtime"):
    token: Name
    version: int
    pid: int


class Ready(FromTask, frozen=True, tag="ready"):
    mode: Literal["fork", "resident", "spawn"]
    why: Text


class Failed(FromTask, frozen=True, tag="failed"):
    error: Failure


class Exited(FromTask, frozen=True, tag="exited"):
    round: Number
    status: Annotated[int, Meta(ge=-1024, le=1024)]
    end: Annotated[bytes, Meta(max_length=MAX_END)] = b""
    """An End, as the round's code wrote it: its runtime does not read it."""


class End(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    computing: Seconds
    moving: Seconds
    output: Value | None = None
    error: Failure | None = None


# Of a round.


class Round(FromTask, frozen=True, tag="round"):
    token: Name
    channel: Annotated[int, Meta(ge=0, lt=2**31)] = 0


class Numbered(FromTask, frozen=True):
    n: Number


class Memory(Numbered, frozen=True, tag="memory"):
    size: Number


class GetGlobal(Numbered, frozen=True, tag="get_global"):
    tag: Name


class SetGlobal(Numbered, frozen=True, tag="set_global"):
    tag: Name
    value: Value


class ListGlobalTags(Numbered, frozen=True, tag="list_global_tags"):
    pass


class AddResult(Numbered, frozen=True, tag="add_result"):
    tag: Name
    value: Value


class SelectResults(Numbered, frozen=True, tag="select_results"):
    tag: Name
    iteration: int | None


class ScheduleNextIteration(Numbered, frozen=True, tag="schedule_next_iteration"):
    node_ids: Annotated[tuple[Name, ...], Meta(max_length=100_000)]
    alias: Name | None


class StopSwarm(Numbered, frozen=True, tag="stop_swarm"):
    pass


class LogMetrics(Numbered, frozen=True, tag="log_metrics"):
    metrics: dict[Name, float]
    step: int | None


class Progress(Numbered, frozen=True, tag="progress"):
    fraction: Annotated[float, Meta(ge=0, le=1)]
    message: Text


class GetState(Numbered, frozen=True, tag="get_state"):
    key: Name


class SetState(Numbered, frozen=True, tag="set_state"):
    key: Name
    value: Value


class GetResources(Numbered, frozen=True, tag="get_resources"):
    pass


class GetNetworkQuality(Numbered, frozen=True, tag="get_network_quality"):
    pass


class GetPerformance(Numbered, frozen=True, tag="get_performance"):
    pass


Wait = Annotated[float, Meta(gt=0, le=366 * 86400)]
"""Seconds that a task is willing to wait."""


class Broadcast(Numbered, frozen=True, tag="broadcast"):
    tag: Name
    value: Value


class GetBroadcast(Numbered, frozen=True, tag="get_broadcast"):
    tag: Name
    timeout: Wait


class Send(Numbered, frozen=True, tag="send"):
    to: Name
    tag: Name
    value: Value


class ResolveNode(Numbered, frozen=True, tag="resolve_node"):
    name: Name


class Receive(Numbered, frozen=True, tag="receive"):
    source: Name
    tag: Name
    number: Count
    timeout: Wait


class ReturnClaims(Numbered, frozen=True, tag="return_claims"):
    source: Name
    tag: Name
    received: Count


class Contribute(Numbered, frozen=True, tag="contribute"):
    number: Annotated[int, Meta(ge=0, lt=2**31)]
    what: Name
    to: Annotated[int, Meta(ge=0, lt=2**31)] | None
    value: Value | None = None


class Collect(Numbered, frozen=True, tag="collect"):
    number: Annotated[int, Meta(ge=0, lt=2**31)]
    what: Name
    ranks: Annotated[tuple[int, ...], Meta(max_length=100_000)]
    enough: Annotated[int, Meta(ge=0)] | None
    partial: bool
    on_loss: Literal["raise", "continue"]
    timeout: Wait


class Lock(Numbered, frozen=True, tag="lock"):
    name: Name
    timeout: Wait


class Unlock(Numbered, frozen=True, tag="unlock"):
    name: Name


class ListPeers(Numbered, frozen=True, tag="list_peers"):
    pass


class Checkpoint(Numbered, frozen=True, tag="checkpoint"):
    value: Value


class Restore(Numbered, frozen=True, tag="restore"):
    pass


Ask = (
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
"""Requests that the task's supervisor answers."""

FromRuntime = Ready | Failed | Exited
FromRound = Ask | Memory

T = TypeVar("T")


class _Decoder(Generic[T]):
    def __init__(self, type: Any) -> None:
        self._decode: Callable[[bytes], T] = msgspec.msgpack.Decoder(type).decode

    def __call__(self, data: bytes) -> T:
        """Raises BrokenFrame."""
        try:
            return self._decode(data)
        except Exception as error:  # RecursionError, UnicodeDecodeError, ...
            raise BrokenFrame(f"{type(error).__name__}: {error}") from error


first = _Decoder[Runtime | Round](Runtime | Round)
from_runtime = _Decoder[FromRuntime](FromRuntime)
from_round = _Decoder[FromRound](FromRound)
end = _Decoder[End](End)
log_record = _Decoder[tuple[float, str, str]](
    tuple[float, Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=MAX_LOG_TEXT)]]
)
