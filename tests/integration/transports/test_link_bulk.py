"""Bulk over links: what a peer may say there, and what becomes of one that says something else."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from manta.transports.errors import DownReason, LinkOverflow
from manta.transports.interface import Buffer, Link
from manta.transports.sealed import curve
from manta.transports.sealed.records import Head, Kind
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.transport import ZmqTransport
from tests.support.blocked_memory import BlockedMemory
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
        [BEGIN + ID, b"", b""],
        [HEAD + ID + b"short", b""],
        [head(0, 10, kind=Kind.OPEN), b"a payload"],
        [head(0, 10, 10, kind=Kind.CHUNK), b"too short"],
    ],
    ids=lambda message: repr(message[0][:2]),
)
def test_what_is_none_of_its_messages_costs_the_link(far: Side, message: list[bytes]) -> None:
    with closing(Bare(far)) as one:
        one.begin()
        one.say(message)
        wait(lambda: DownReason.PROTOCOL in one.down)
        wait(lambda: one.peer.state is DownReason.LOST)


def test_a_breach_of_the_rules_of_transfers_costs_the_session_and_not_the_link(far: Side) -> None:
    with closing(Bare(far)) as one:
        one.begin()
        one.say([head(0, 10, 10, kind=Kind.CHUNK), bytes(10)])
        wait(lambda: [END + ID, b""] in one.said)
        why = b"a chunk of a transfer that was not granted"
        assert [HEAD + ID + Head(Kind.BYE, length=len(why)).pack(), why] in one.said
        assert one.peer.state is DownReason.PROTOCOL
        one.said.clear()
        one.begin()
        wait(lambda: one.peer.state is None)
        assert not one.down


def test_who_is_told_that_it_broke_the_rules_leaves_the_session(
    far: Side, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Bare(far)) as one:
        one.begin()
        why = b"of a test"
        one.say([HEAD + ID + Head(Kind.BYE, length=len(why)).pack(), why])
        wait(lambda: one.peer.state is DownReason.PROTOCOL)
        assert "this side broke its rules: of a test" in caplog.text
        assert not one.down


@pytest.mark.parametrize("what", ["writing", "reading"])
def test_a_disk_that_hangs_holds_up_no_letter_on_the_link(what: str) -> None:
    near, far = Side("curve"), Side("curve")
    far.listen(None)  # type: ignore[arg-type]
    near.meet(far)
    link = near.endpoint._dialled[far.keys.public]
    size = 3_000_000
    with BlockedMemory(size) as blocked:
        wait(lambda: link.state is None)
        memory = memoryview(bytearray(size))
        source, place = (memory, blocked.view) if what == "writing" else (blocked.view, memory)
        arriving = Outcome()
        far.peer(near).expect(name(1), place, done=arriving.done, progress=arriving.progress)
        sending = near.send(far, 1, source)
        blocked.wait()
        link.send([b"a letter"])
        [back] = far.endpoint._transport._listeners.copy().pop().links(near.keys.public)
        wait(lambda: far.endpoint.letters == [b"a letter"])
        back.send([b"its answer"])
        wait(lambda: near.endpoint.letters == [b"its answer"])
        assert arriving.upto == 0
        assert blocked.let_go()
        for outcome in (arriving, sending):
            outcome.result()
        assert place == source
    for side in (near, far):
        side.endpoint.close()


def test_what_comes_faster_than_it_may_takes_no_more_room_and_ends_the_session(
    far: Side, caplog: pytest.LogCaptureFixture
) -> None:
    asked, may_go = threading.Event(), threading.Event()
    size, chunk = 100 << 20, 256 * 1024

    def place(_: int) -> memoryview:
        asked.set()
        assert may_go.wait(20)
        return memoryview(bytearray(size))

    with closing(Bare(far)) as one:
        one.begin()
        arriving = Outcome()
        one.peer.adopt(name(1), size, place, done=arriving.done)
        one.say([head(0, size), b""])
        wait(lambda: Kind.CREDIT in [_kind(message) for message in one.said])

        def put(offset: int) -> None:
            message = [head(offset, size, chunk, kind=Kind.CHUNK), bytes(chunk)]
            wait(lambda: _is_sent(one.link, message))

        put(0)
        assert asked.wait(20)
        session = far.endpoint._sessions._sessions[one.peer.key]
        sizes = []
        for number in range(1, 200):
            put(number * chunk)
            sizes.append(session._aside._size)
            if "faster than it may" in caplog.text:
                break
        may_go.set()
        assert 0 < max(sizes) <= curve._MOST_ASIDE
        wait(lambda: session._aside._size == 0)
        wait(lambda: [END + ID, b""] in one.said)
        assert one.peer.state is DownReason.LOST
        assert not one.down
        assert not arriving.ended.is_set()  # it goes on with the next session


def _kind(message: list[bytes]) -> Kind | None:
    first = message[0]
    return Head.unpack(first[1 + len(ID) :]).kind if first[:1] == HEAD else None


def _is_sent(link: Link, message: list[bytes]) -> bool:
    try:
        link.send(message)
    except LinkOverflow:
        return False
    return True


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
