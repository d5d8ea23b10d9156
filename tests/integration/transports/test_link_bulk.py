"""Bulk over links: what a peer may say there, and what becomes of one that says something else."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from manta.transports.errors import DownReason
from manta.transports.interface import Buffer, Link
from manta.transports.sealed.records import Head, Kind
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.transport import ZmqTransport
from tests.support.peers import Outcome, Side, name, wait

BEGIN, BEGUN, HEAD, END = (bytes([mark]) for mark in (1, 2, 3, 4))
ID = b"12345678"


class Bare:
    """A peer that says what it likes."""

    def __init__(self, far: Side) -> None:
        keys = KeyPair.generate()
        far.admission.allow(keys.public)
        self.peer = far.endpoint.peer(keys.public)
        self.said: list[list[bytes]] = []
        self.down: list[DownReason] = []
        self.transport = ZmqTransport(keys)
        self.link = self.transport.dial(far.address, far.keys.public, self)
        wait(lambda: self.link.state is None)

    def say(self, *messages: list[bytes]) -> None:
        for message in messages:
            self.link.send(message)

    def begin(self) -> None:
        self.say([BEGIN + ID, b""])
        wait(lambda: [BEGUN + ID, b""] in self.said)

    def link_up(self, link: Link) -> None: ...

    def link_down(self, link: Link, reason: DownReason) -> None:
        self.down.append(reason)

    def received(self, link: Link, message: list[Buffer]) -> None:
        self.said.append([bytes(part) for part in message])

    def close(self) -> None:
        self.transport.close()


@pytest.fixture
def far() -> Iterator[Side]:
    side = Side("curve")
    side.listen(None)  # type: ignore[arg-type]
    yield side
    side.endpoint.close()


def head(*arguments: int, kind: Kind = Kind.OPEN, id_: bytes = ID) -> bytes:
    return HEAD + id_ + Head(kind, name(1), *arguments).pack()


@pytest.mark.parametrize(
    "message",
    [
        [b"\7" + ID, b""],
        [b"\0" + ID, b""],
        [BEGIN, b""],
        [b"", b""],
        [BEGIN + ID],
        [BEGIN + ID, b"", b""],
        [HEAD + ID + b"short", b""],
        [head(0, 10, kind=Kind.OPEN), b"a payload"],
        [head(0, 10, 10, kind=Kind.CHUNK), b"too short"],
        [head(0, 10, 10, kind=Kind.CHUNK), bytes(10)],
    ],
    ids=lambda message: repr(message[0][:2]),
)
def test_what_is_none_of_its_messages_costs_the_link(far: Side, message: list[bytes]) -> None:
    with closing(Bare(far)) as one:
        one.begin()
        one.say(message)
        wait(lambda: DownReason.PROTOCOL in one.down)
        wait(lambda: one.peer.state is DownReason.LOST)


def test_what_is_said_of_a_session_that_is_over_changes_nothing(far: Side) -> None:
    with closing(Bare(far)) as one:
        one.say([head(0, 10), b""], [END + ID, b""], [BEGUN + ID, b""])
        one.begin()
        one.say([head(0, 10, 10, kind=Kind.CHUNK, id_=ID[::-1]), bytes(10)])
        one.say([END + ID, b""])
        wait(lambda: one.peer.state is DownReason.CLOSED)
        one.say([head(0, 10, 10, kind=Kind.CHUNK), bytes(10)])
        one.begin()
        assert not one.down


def test_sessions_are_begun_only_so_often(far: Side) -> None:
    with closing(Bare(far)) as one:
        before = threading.active_count()
        for _ in range(200):
            if one.down:
                break
            one.link.send([BEGIN + os.urandom(8), b""])
        wait(lambda: DownReason.PROTOCOL in one.down)
        wait(lambda: threading.active_count() <= before + 1)


def test_a_session_that_is_not_answered_is_given_up(far: Side) -> None:
    with closing(Bare(far)) as one:
        sessions = far.endpoint._sessions
        [link] = far.endpoint._transport._listeners.copy().pop().links(one.peer.key)
        begin: Callable[[], None] = lambda: sessions.begin(link)  # noqa: E731
        far.endpoint._transport.call_soon(begin)
        wait(lambda: any(message[0][:1] == BEGIN for message in one.said))
        wait(lambda: one.peer.state is DownReason.SILENT)
        wait(lambda: any(message[0][:1] == END for message in one.said))


def test_a_session_takes_the_place_of_another_and_goes_on_where_that_was() -> None:
    near, far = Side("curve"), Side("curve")
    try:
        far.listen(None)  # type: ignore[arg-type]
        near.meet(far)
        data = os.urandom(3_000_000)
        arriving, there = far.expect(near, 1, len(data))
        sending = Outcome()
        near.peer(far).send(name(1), [data], done=sending.done, ready=1_000_000)
        wait(lambda: arriving.upto == 1_000_000)
        link = near.endpoint._dialled[far.keys.public]
        for _ in range(5):
            near.endpoint._transport.call_soon(lambda: near.endpoint._sessions.begin(link))
        near.peer(far).ready(name(1), len(data))
        for outcome in (arriving, sending):
            outcome.result()
        assert there == data
    finally:
        for side in (near, far):
            side.endpoint.close()
