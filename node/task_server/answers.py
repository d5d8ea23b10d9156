"""Turns the outcomes of requests into messages for tasks."""

from __future__ import annotations

from typing import Any

import msgspec

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
_GIVING_ENTRIES = (requests.Collect, requests.SelectResults)

Entry = Contribution | ResultEntry


def answer(request: requests.Body, value: Any) -> list[Message]:
    """The messages that carry a request's outcome."""
    head = {"k": "answer", "n": request.n}
    if isinstance(request, _GIVING_A_VALUE):
        return [_with_value(head, value)]
    if isinstance(request, requests.OpenExchange | requests.OpenMesh):
        return [(head, value)]
    if isinstance(request, _GIVING_ENTRIES):
        entries: list[Entry] = value
        return [({**head, "count": len(entries)}, None), *(_entry(request.n, e) for e in entries)]
    return [({**head, "plain": value}, None)]


def failure(number: int, error: Error) -> Message:
    """The message that answers a request that could not be carried out."""
    kind, sentence = error
    return {"k": "error", "n": number, "kind": kind, "sentence": sentence}, None


def _entry(number: int, entry: Entry) -> Message:
    fields = msgspec.structs.asdict(entry)
    value = fields.pop("value")
    return _with_value({"k": "entry", "n": number, **fields}, value)


def _with_value(head: dict[str, Any], value: Payload | None) -> Message:
    if value is None:
        return head, None
    if isinstance(value, Inline):
        return {**head, "data": value.data}, None
    return {**head, "size": value.size}, value


def blobs(messages: list[Message]) -> list[str]:
    """The digests of the blobs that go along with messages."""
    return [along.digest for _, along in messages if isinstance(along, BlobRef)]
