"""Requests of tasks as their supervisors know them, and answers as tasks do."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from typing import Any

from manta.node.task_server import session as ask
from manta.node.task_server import wire
from manta.node.task_server.sessions import Message
from manta.protocol.exchange import Contribution
from manta.protocol.node import ResultEntry
from manta.protocol.values import BlobRef, Inline, Payload

Error = tuple[str, str]
"""Kind and sentence."""


class Reply:
    """What a request is answered with: the first call is the one. From any thread."""

    def __init__(self, done: Callable[[Any, Error | None], None]) -> None:
        self._done = [done]  # list.pop is atomic
        self.abandoned = False
        """Whether a signal took the task out of the request: nobody waits for the answer."""

    def set(self, value: Any = None) -> None:
        """The outcome, in the form that the request's docstring names."""
        self._answer(value, None)

    def fail(self, kind: str, sentence: str) -> None:
        """`kind` names an exception of `manta.light.errors`; others become RequestFailed."""
        self._answer(None, (kind, sentence))

    def _answer(self, value: Any, error: Error | None) -> None:
        try:
            done = self._done.pop()
        except IndexError:
            return
        done(value, error)


_GIVING_A_VALUE = (
    wire.GetGlobal,
    wire.GetState,
    wire.GetBroadcast,
    wire.Receive,
    wire.Restore,
)


def body(request: wire.Ask, value: Payload | None) -> Any:
    """The request as `session` has it; `value` replaces the one on the wire."""
    match request:
        case wire.GetGlobal():
            return ask.GetGlobal(request.tag)
        case wire.SetGlobal():
            return ask.SetGlobal(request.tag, _given(value))
        case wire.ListGlobalTags():
            return ask.ListGlobalTags()
        case wire.AddResult():
            return ask.AddResult(request.tag, _given(value))
        case wire.SelectResults():
            return ask.SelectResults(request.tag, request.iteration)
        case wire.ScheduleNextIteration():
            return ask.ScheduleNextIteration(request.node_ids, request.alias)
        case wire.StopSwarm():
            return ask.StopSwarm()
        case wire.LogMetrics():
            return ask.LogMetrics(request.metrics, request.step)
        case wire.Progress():
            return ask.Progress(request.fraction, request.message)
        case wire.GetState():
            return ask.GetState(request.key)
        case wire.SetState():
            return ask.SetState(request.key, _given(value))
        case wire.GetResources():
            return ask.GetResources()
        case wire.GetPerformance():
            return ask.GetPerformance()
        case wire.GetNetworkQuality():
            return ask.GetNetworkQuality()
        case wire.Broadcast():
            return ask.Broadcast(request.tag, _given(value))
        case wire.GetBroadcast():
            return ask.GetBroadcast(request.tag, request.timeout)
        case wire.Send():
            return ask.Send(request.to, request.tag, _given(value))
        case wire.Receive():
            return ask.Receive(request.source, request.tag, request.number, request.timeout)
        case wire.ReturnClaims():
            return ask.ReturnClaims(request.source, request.tag, request.received)
        case wire.ResolveNode():
            return ask.ResolveNode(request.name)
        case wire.Contribute():
            return ask.Contribute(request.number, request.what, request.to, value)
        case wire.Collect():
            return ask.Collect(
                request.number,
                request.what,
                request.ranks,
                request.enough,
                request.partial,
                request.on_loss,
                request.timeout,
            )
        case wire.Lock():
            return ask.Lock(request.name, request.timeout)
        case wire.Unlock():
            return ask.Unlock(request.name)
        case wire.ListPeers():
            return ask.ListPeers()
        case wire.Checkpoint():
            return ask.Checkpoint(_given(value))
        case wire.Restore():
            return ask.Restore()


def _given(value: Payload | None) -> Payload:
    assert value is not None
    return value


def answer(request: wire.Ask, value: Any) -> list[Message]:
    """What a request's outcome looks like on the wire."""
    head = {"k": "answer", "n": request.n}
    if isinstance(request, _GIVING_A_VALUE):
        return [_with_value(head, value)]
    if isinstance(request, wire.Collect):
        parts: list[Contribution] = value
        return [({**head, "count": len(parts)}, None), *(_part(request.n, p) for p in parts)]
    if isinstance(request, wire.SelectResults):
        entries: list[ResultEntry] = value
        return [({**head, "count": len(entries)}, None), *(_entry(request.n, e) for e in entries)]
    return [({**head, "plain": value}, None)]


def failure(number: int, error: Error) -> Message:
    """The answer to a request that could not be carried out."""
    kind, sentence = error
    return {"k": "error", "n": number, "kind": kind, "sentence": sentence}, None


def _entry(number: int, entry: ResultEntry) -> Message:
    head = {
        "k": "entry",
        "n": number,
        "node_id": entry.node_id,
        "alias": entry.alias,
        "index": entry.index,
        "iteration": entry.iteration,
        "attempt": entry.attempt,
    }
    return _with_value(head, entry.value)


def _part(number: int, part: Contribution) -> Message:
    return _with_value({"k": "entry", "n": number, "rank": part.rank}, part.value)


def _with_value(head: dict[str, Any], value: Payload | None) -> Message:
    if value is None:
        return head, None
    if isinstance(value, Inline):
        return {**head, "data": value.data}, None
    return {**head, "size": value.size}, value


def blobs(messages: list[Message]) -> list[str]:
    """Digests of the blobs that messages bring."""
    return [along.digest for _, along in messages if isinstance(along, BlobRef)]


def memory(size: int) -> int:
    """A memfd of that size that nobody can cut short: whoever maps it would die of it.

    Raises OSError.
    """
    if size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        raise OSError("it is larger than this machine's memory")
    fd = os.memfd_create("manta-value", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except BaseException:
        os.close(fd)
        raise
    return fd
