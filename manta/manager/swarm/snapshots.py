"""Snapshots of a swarm's state: a replay that begins with one needs only the events after it.

A snapshot is a cache. One that another version made, or that cannot be read, is passed over, and
all events are replayed. The packed pages of the state are stored apart, each once and again when
it has changed, so that a snapshot of a long swarm costs no more than one of a short swarm.
Once stored they take no memory: what is asked of the past is read from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import fields
from types import GenericAlias
from typing import Any, get_type_hints

import msgspec

from manta.manager.swarm.exchange import Exchange
from manta.manager.swarm.letters import ChannelState, Post, Route, Sender
from manta.manager.swarm.state import SwarmData
from manta.protocol.base import Instance
from manta.protocol.version import VERSION
from manta.transports.codec.stored import Thing, read_stored

_PACKED = ("runs", "results", "by_tag", "settled", "metrics", "events")
_HINTS: dict[str, Any] = {
    **get_type_hints(SwarmData),
    "live": list[Instance],
    "lasting": dict[str, int],
}


class _Post(msgspec.Struct, array_like=True):
    channels: list[tuple[Route, ChannelState]]
    sent: dict[Instance, dict[Route, int]]
    known: dict[Sender, dict[Route, int]]
    logged: int


_EXCHANGE = {**get_type_hints(Exchange), "post": _Post}
_Exchange = msgspec.defstruct("_Exchange", [(f.name, _EXCHANGE[f.name]) for f in fields(Exchange)])
_Data = msgspec.defstruct(
    "_Data",
    [
        ("version", str),
        ("revision", int),
        ("pages", dict[str, int]),
        ("exchange", _Exchange),
        *((name, GenericAlias(list, _HINTS[name].__args__)) for name in _PACKED),
        *(
            (f.name, _HINTS[f.name])
            for f in fields(SwarmData)
            if f.name not in ("exchange", *_PACKED)
        ),
    ],
)
Read = Callable[[str], bytes]
"""Reads a page from the store, by its name."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Data).decode


def pages(data: SwarmData, most: int) -> tuple[dict[str, bytes], bool]:
    """Pages that changed since this last returned them, of about so many bytes; and whether there
    are more."""
    found: dict[str, bytes] = {}
    for name, one in data.packed.items():
        for page, content in one.changes(most).items():
            found[f"{name}/{page}"] = content
            most -= len(content)
    return found, any(one.has_changes for one in data.packed.values())


def body(data: SwarmData, revision: int) -> bytes:
    """The state as of the event `revision`, without its pages."""
    values = {f.name: getattr(data, f.name) for f in fields(SwarmData)}
    values |= {name: one.tail for name, one in data.packed.items()}
    values["live"] = list(data.live)
    values["exchange"] = _exchange(data.exchange)
    count = {name: one.pages for name, one in data.packed.items()}
    return _encode(_Data(version=VERSION, revision=revision, pages=count, **values))


def not_stored(data: SwarmData, names: Iterable[str]) -> None:
    """These pages have to be part of the next snapshot as well."""
    for kind, page in map(_page_of, names):
        data.packed[kind].change_again([page])


def stored(data: SwarmData, pages: Mapping[str, bytes], read: Read) -> None:
    """These are in the store: those that have not changed since are let go."""
    for name, content in pages.items():
        kind, page = _page_of(name)
        data.packed[kind].let_go({page: content}, _reading(kind, read))


def _page_of(name: str) -> tuple[str, int]:
    kind, _, page = name.partition("/")
    return kind, int(page)


def _reading(kind: str, read: Read) -> Callable[[int], bytes]:
    return lambda page: read(f"{kind}/{page}")


def load(body: bytes, pages: Container[str], read: Read) -> tuple[SwarmData, int]:
    """The state, and the number of its last event; `pages` names those that are stored. Raises
    Damaged."""
    thing = Thing("The snapshot", "nothing is lost but time", "all events are replayed")
    return read_stored(thing, lambda body: _load(body, pages, read), body)


def _load(body: bytes, pages: Container[str], read: Read) -> tuple[SwarmData, int]:
    found: Any = _decode(body)
    if found.version != VERSION:
        raise ValueError(f"version {found.version} made it")
    data = SwarmData(found.swarm_id, found.cluster_id)
    for field in fields(SwarmData):
        if field.name not in (*_PACKED, "live", "exchange", "lasting"):
            setattr(data, field.name, getattr(found, field.name))
    data.lasting = Counter(found.lasting)
    data.exchange = _loaded(found.exchange)
    for name, one in data.packed.items():
        count = found.pages[name]
        if lacking := [page for page in range(count) if f"{name}/{page}" not in pages]:
            raise ValueError(f"page {lacking[0]} of {name} is missing")
        one.load(count, _reading(name, read), getattr(found, name))
    for at in found.live:
        data.live[at] = data.runs[at.iteration][at.alias].instances[at.index].attempts[at.attempt]
    return data, found.revision


def _exchange(exchange: Exchange) -> Any:
    values = {f.name: getattr(exchange, f.name) for f in fields(Exchange)}
    post = exchange.post
    channels = [(route, channel.state) for route, channel in post.channels.items()]
    values["post"] = _Post(channels, post.sent, post.known, post.logged)
    return _Exchange(**values)


def _loaded(found: Any) -> Exchange:
    post = Post(sent=found.post.sent, known=found.post.known, logged=found.post.logged)
    for route, state in found.post.channels:
        post.load(route, state)
    values = {f.name: getattr(found, f.name) for f in fields(Exchange)}
    return Exchange(**{**values, "post": post})
