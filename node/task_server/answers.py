"""Answers to requests, as tasks get them."""

from __future__ import annotations

from typing import Any

from manta.node.task_server import requests
from manta.node.task_server.requests import Error
from manta.node.task_server.sessions import Message
from manta.protocol.exchange import Contribution
from manta.protocol.node import ResultEntry
from manta.protocol.values import BlobRef, Inline, Payload

_GIVING_A_VALUE = (
    requests.GetGlobal,
    requests.GetState,
    requests.GetBroadcast,
    requests.Receive,
    requests.Restore,
)


def answer(request: requests.Body, value: Any) -> list[Message]:
    """What a request's outcome looks like on the wire."""
    head = {"k": "answer", "n": request.n}
    if isinstance(request, _GIVING_A_VALUE):
        return [_with_value(head, value)]
    if isinstance(request, requests.Collect):
        parts: list[Contribution] = value
        return [({**head, "count": len(parts)}, None), *(_part(request.n, p) for p in parts)]
    if isinstance(request, requests.SelectResults):
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
