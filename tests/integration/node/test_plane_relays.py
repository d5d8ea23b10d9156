"""Nodes that cannot connect to each other: what a relay carries for them, and what it cannot do."""

from __future__ import annotations

import itertools
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import cast

import pytest

from manta.node.peers.directory import DirectoryChanged
from manta.node.plane import relay_ways
from manta.transports.errors import DownReason, RemoteProtocolError
from manta.transports.interface import Buffer, Link
from manta.transports.relay import wire
from manta.transports.relay.hub import RelayLimits
from manta.transports.relay.server import RelayingTransport
from manta.transports.relay.wire import Kind, Purpose
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.links import ZmqLink
from manta.transports.zeromq.transport import ZmqTransport
from tests.integration.node.test_plane_links import is_linked, letters_pass, wait
from tests.support.planes import SWARM, Node, Planes, planes


class Relay:
    """As a manager is one; it knows no other messages."""

    def __init__(self, limits: RelayLimits | None = None, host: str = "127.0.0.1") -> None:
        self.keys = KeyPair.generate()
        self.joined: set[str] = set()
        self.transport = RelayingTransport(
            self.keys, lambda one, other: {one, other} <= self.joined, limits
        )
        self.admission = Admission()
        self.listener = self.transport.listen(f"tcp://{host}:0", self, self.admission)
        self.seen: list[bytes] = []
        heard = self.transport.heard

        def listening_in(link: Link, message: list[Buffer]) -> None:
            self.seen.append(bytes(message[1]))
            heard(link, [message[0], self.alter(bytes(message[1]))])

        self.transport.heard = listening_in  # type: ignore[method-assign]
        self.alters = False

    def alter(self, data: bytes) -> bytes:
        if not self.alters or len(data) < 1000:
            return data
        at = random.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    @property
    def at(self) -> tuple[str, str]:
        return self.listener.address, self.keys.public

    def admit(self, *nodes: Node) -> None:
        for node in nodes:
            self.admission.allow(node.peer.key)
            self.joined.add(node.peer.key)

    def link_up(self, link: Link) -> None: ...

    def link_down(self, link: Link, reason: DownReason) -> None: ...

    def received(self, link: Link, message: list[Buffer]) -> None:
        raise RemoteProtocolError("nothing but relaying is done here")

    def close(self) -> None:
        self.transport.close()


@contextmanager
def relayed(limits: RelayLimits | None = None, **options) -> Iterator[tuple[Planes, Relay]]:
    """Two nodes that can dial nobody but the relay."""
    with closing(Relay(limits)) as relay, planes(2, relay=relay.at, **options) as lab:
        relay.admit(*lab.nodes)
        yield lab, relay


NOWHERE: dict[str, tuple[str, ...]] = {"n1": (), "n2": ()}


def is_relayed(lab: Planes, at: int, other: int) -> bool:
    node = lab.nodes[at]
    return bool(node.run(node.plane.links.is_relayed, lab.nodes[other].peer.key))


def test_who_cannot_connect_to_the_other_exchanges_by_a_relay_that_can_read_nothing() -> None:
    with relayed() as (lab, relay):
        lab.introduce(**NOWHERE)
        letters_pass(lab)
        assert is_relayed(lab, 0, 1)
        assert is_relayed(lab, 1, 0)
        lab.enroll(iteration=1)
        one, two = (node.attempt(lab.at(rank, iteration=1)) for rank, node in enumerate(lab.nodes))
        for mark, times in (
            (b"a plain word in a letter", 4),
            (b"and one in a large value", 40_000),
        ):
            one.call("send_letter", to="id-2", tag="x", value=mark * times, timeout=20.0)
        for number, mark in enumerate((b"a plain word", b"and one in a")):
            got = two.call("receive_letter", source="id-1", tag="x", number=number, timeout=20.0)
            assert got.startswith(mark)
            assert not any(mark in data for data in relay.seen)
        assert sum(map(len, relay.seen)) > 900_000
        for end in (one, two):
            end.close()


def test_all_of_many_nodes_that_can_connect_to_nobody_exchange_with_each_other() -> None:
    """Each has twelve streams, most of them idle."""
    count = 7
    with closing(Relay()) as relay, planes(count, relay=relay.at) as lab:
        relay.admit(*lab.nodes)
        lab.introduce(**{f"n{number}": () for number in range(1, count + 1)})
        pairs = list(itertools.permutations(range(count), 2))
        wait(lambda: all(is_linked(lab, *pair) for pair in pairs), 40.0)
        lab.enroll()
        ends = [node.attempt(lab.at(rank)) for rank, node in enumerate(lab.nodes)]
        values = {pair: os.urandom(300_000) for pair in pairs}
        for (one, two), value in values.items():
            ends[one].call("send_letter", to=f"id-{two + 1}", tag="x", value=value, timeout=30.0)
        for (one, two), value in values.items():
            asked = {"source": f"id-{one + 1}", "tag": "x", "number": 0, "timeout": 30.0}
            assert ends[two].call("receive_letter", **asked) == value
        for end in ends:
            end.close()


def test_a_direct_link_takes_over_and_the_relay_carries_nothing_more() -> None:
    with relayed() as (lab, relay):
        lab.introduce(**NOWHERE)
        wait(lambda: is_linked(lab, 0, 1) and is_linked(lab, 1, 0))
        lab.introduce()
        wait(lambda: not is_relayed(lab, 0, 1) and not is_relayed(lab, 1, 0))
        wait(lambda: is_linked(lab, 0, 1) and is_linked(lab, 1, 0))
        wait(lambda: not relay.transport.hub)
        letters_pass(lab)


def test_a_relay_that_alters_bytes_ends_the_stream_and_no_wrong_byte_arrives() -> None:
    with relayed() as (lab, relay):
        lab.introduce(**NOWHERE)
        letters_pass(lab)
        relay.alters = True
        lab.enroll(iteration=1)
        one, two = (node.attempt(lab.at(rank, iteration=1)) for rank, node in enumerate(lab.nodes))
        value = os.urandom(2_000_000)
        one.call("send_letter", to="id-2", tag="x", value=value, timeout=20.0)
        two.begin("receive_letter", source="id-1", tag="x", number=0, timeout=50.0)
        key = lab.nodes[0].peer.key
        wait(lambda: lab.nodes[1].bulk.peer(key).state is not None)
        relay.alters = False
        assert two.end() == value
        for end in (one, two):
            end.close()


def test_who_is_not_to_be_joined_any_more_is_cut_off_at_once() -> None:
    with relayed() as (lab, _):
        lab.introduce(**NOWHERE)
        wait(lambda: is_linked(lab, 0, 1) and is_linked(lab, 1, 0))
        lab.nodes[0].run(lab.nodes[0].plane.links.forget, [lab.nodes[1].peer.key])
        assert not is_linked(lab, 0, 1)
        wait(lambda: not is_linked(lab, 1, 0), 1.0)


def test_a_node_without_its_relay_is_linked_again_when_that_is_back() -> None:
    with relayed() as (lab, relay):
        lab.introduce(**NOWHERE)
        wait(lambda: is_linked(lab, 0, 1) and is_linked(lab, 1, 0))
        for node in lab.nodes:
            for link in relay.listener.links(node.peer.key):
                link.close()
        wait(lambda: not is_linked(lab, 0, 1) and not is_linked(lab, 1, 0))
        letters_pass(lab)


class Stranger:
    """A node that says what it likes."""

    def __init__(self, relay: Relay) -> None:
        keys = KeyPair.generate()
        relay.admission.allow(keys.public)
        self.key = keys.public
        self.transport = ZmqTransport(keys)
        self.said: list[wire.Said] = []
        self.down: list[DownReason] = []
        self.link = self.transport.dial(relay.at[0], relay.at[1], self)
        wait(lambda: self.link.state is None)

    def say(self, *said: wire.Said) -> None:
        for one in said:
            self.link.send(one.pack())

    def link_up(self, link: Link) -> None: ...

    def link_down(self, link: Link, reason: DownReason) -> None:
        self.down.append(reason)

    def received(self, link: Link, message: list[Buffer]) -> None:
        self.said.append(wire.unpack(message))

    def close(self) -> None:
        self.transport.close()


def test_streams_to_nodes_of_other_swarms_are_refused() -> None:
    with relayed() as (lab, relay), closing(Stranger(relay)) as hostile:
        lab.introduce(**NOWHERE)
        wait(lambda: is_linked(lab, 0, 1))
        for number in range(600):
            hostile.say(wire.opening(number, Purpose.LINK, lab.nodes[number % 2].peer.key))
        wait(lambda: len(hostile.said) == 600, 40.0)
        assert {said.kind for said in hostile.said} == {Kind.CLOSE}
        assert is_linked(lab, 0, 1)


@pytest.mark.parametrize(
    "said",
    [
        [wire.data(9, b"x")],
        [wire.opening(1, Purpose.LINK, "k" * 40), wire.data(1, b"x")],
        [wire.closing(7, "x"), wire.credit(7, 1)],
    ],
    ids=["data", "refused", "closed"],
)
def test_what_is_said_of_no_stream_changes_nothing(said: list[wire.Said]) -> None:
    with closing(Relay()) as relay, closing(Stranger(relay)) as one:
        one.say(*said, wire.opening(2, Purpose.LINK, "k" * 40))
        wait(lambda: any(said.stream == 2 for said in one.said))
        assert not one.down


@pytest.mark.parametrize(
    "said",
    [
        wire.opening(wire.THEIRS | 1, Purpose.LINK, "k" * 40),
        wire.Said(Kind.OPEN, 1, b"\1short"),
        wire.Said(Kind.OPEN, 1, b"\7" + b"k" * 40),
        wire.Said(Kind.DATA, 1, b""),
        wire.Said(Kind.DATA, 1, bytes(wire.MAX_DATA + 1)),
        wire.Said(Kind.CREDIT, 1, b"1"),
        wire.Said(Kind.CLOSE, 1, bytes(wire.MAX_TEXT + 1)),
    ],
)
def test_who_breaks_the_relay_s_protocol_loses_its_link(said: wire.Said) -> None:
    with closing(Relay()) as relay, closing(Stranger(relay)) as one:
        one.say(said)
        wait(lambda: DownReason.PROTOCOL in one.down)


def test_who_sends_more_than_it_was_granted_loses_its_link() -> None:
    with ExitStack() as undo:
        relay = undo.enter_context(closing(Relay()))
        one, two = (undo.enter_context(closing(Stranger(relay))) for _ in range(2))
        relay.joined |= {one.key, two.key}
        two.say(wire.HERE)
        wait(lambda: two.key in relay.transport.hub.keys)
        one.say(wire.opening(1, Purpose.LINK, two.key))
        wait(lambda: two.said)
        number = two.said[0].stream
        two.say(wire.credit(number, wire.REPORT))
        wait(lambda: any(said.kind is Kind.CREDIT for said in one.said))
        allowed = wire.REPORT - wire.OVERHEAD
        one.say(wire.data(1, bytes(allowed)), wire.data(1, b"x"))
        wait(lambda: DownReason.PROTOCOL in one.down)
        wait(lambda: any(said.kind is Kind.CLOSE for said in two.said))
        assert sum(len(said.payload) for said in two.said if said.kind is Kind.DATA) == allowed


def test_a_node_moves_no_more_than_its_share() -> None:
    limits = RelayLimits(rate=2e6, total=8e6)
    with relayed(limits) as (lab, _):
        lab.introduce(**NOWHERE)
        wait(lambda: is_linked(lab, 0, 1) and is_linked(lab, 1, 0))
        lab.enroll()
        one, two = (node.attempt(lab.at(rank)) for rank, node in enumerate(lab.nodes))
        began = time.monotonic()
        one.call("send_letter", to="id-2", tag="x", value=os.urandom(4_000_000), timeout=20.0)
        two.call("receive_letter", source="id-1", tag="x", number=0, timeout=20.0)
        assert time.monotonic() - began > 1.0  # never faster, whatever the machine
        for end in (one, two):
            end.close()


def test_a_relay_that_is_slow_to_take_what_is_sent_ends_no_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sockets are not read meanwhile, and links stay up."""
    full = False
    asked = 0

    def is_half_full(link: ZmqLink) -> bool:
        nonlocal asked
        asked += full
        return full

    monkeypatch.setattr(ZmqLink, "is_half_full", property(is_half_full))
    with relayed() as (lab, relay):
        lab.introduce(**NOWHERE)
        wait(lambda: is_linked(lab, 0, 1) and is_linked(lab, 1, 0))
        lab.enroll()
        one, two = (node.attempt(lab.at(rank)) for rank, node in enumerate(lab.nodes))
        value = os.urandom(3_000_000)
        full = True
        seen = len(relay.seen)
        one.call("send_letter", to="id-2", tag="x", value=value, timeout=20.0)
        two.begin("receive_letter", source="id-1", tag="x", number=0, timeout=30.0)
        wait(lambda: asked > 10)
        assert not any(len(data) > 1000 for data in relay.seen[seen:])
        full = False
        assert two.end() == value
        assert is_relayed(lab, 0, 1)
        for end in (one, two):
            end.close()


def test_a_link_is_half_full_before_it_overflows() -> None:
    with closing(Relay()) as relay, closing(Stranger(relay)) as one:
        blocked, release = threading.Event(), threading.Event()
        data, sent = [bytes(128 * 1024)], 0

        def block() -> None:
            blocked.set()
            release.wait(20)

        relay.transport.call_soon(block)
        assert blocked.wait(20)
        try:
            while not cast("ZmqLink", one.link).is_half_full:
                one.link.send(data)
                sent += 1
            assert 24 < sent < 40
        finally:
            release.set()


def test_who_is_no_node_is_not_heard_by_a_relay() -> None:
    with closing(Relay()) as relay:
        relay.transport.serves = lambda key: key in relay.joined
        with closing(Stranger(relay)) as guest, closing(Stranger(relay)) as node:
            relay.joined.add(node.key)
            guest.say(wire.HERE)
            wait(lambda: DownReason.PROTOCOL in guest.down)
            node.say(wire.HERE)
            wait(lambda: node.key in relay.transport.hub.keys)
            assert guest.key not in relay.transport.hub.keys


def test_a_stream_gives_back_what_it_does_not_use() -> None:
    with relayed() as (lab, relay):
        lab.introduce(**NOWHERE)
        letters_pass(lab)
        hub = relay.transport.hub

        def at_rest() -> bool:
            served = hub._served.values()
            ends = [end for one in served for end in one.ends.values()]
            return all(end.credit <= wire.RESERVE for end in ends)

        wait(at_rest)
        letters_pass(lab, iteration=1)
        wait(at_rest)
        for served in hub._served.values():  # nothing but what is yet to be reported
            assert served.promised < wire.REPORT * len(served.ends)


def test_a_node_that_both_can_connect_to_relays_where_the_manager_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_ways, "LOOK", 0.2)
    with planes(3) as lab:
        one, two, third = lab.nodes
        lab.introduce(**NOWHERE)
        wait(lambda: is_linked(lab, 0, 1) and is_linked(lab, 1, 0))
        assert is_relayed(lab, 0, 1)
        assert is_relayed(lab, 1, 0)
        assert not is_relayed(lab, 0, 2)
        letters_pass(Planes([one, two]))
        assert len(third.transport.hub) == 2  # a link, and large values
        third.run(third.plane.links.forget, [two.peer.key])
        third.run(third.plane.known.apply, DirectoryChanged(SWARM, lab.epoch, True, (one.peer,)))
        wait(lambda: not is_linked(lab, 0, 1), 10.0)
        wait(lambda: not third.transport.hub)


def test_a_node_that_relayed_and_is_forgotten_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_ways, "LOOK", 0.2)
    with planes(3) as lab:
        one, _, third = lab.nodes
        lab.introduce(**NOWHERE)
        wait(lambda: is_linked(lab, 0, 1) and is_linked(lab, 1, 0))
        lab.remove(2)
        wait(lambda: not is_linked(lab, 0, 1) and not is_linked(lab, 1, 0))
        assert not one.plane.relays._nodes
        wait(lambda: not third.transport.hub)


def test_a_stranger_on_this_machine_is_not_let_into_a_stream() -> None:
    """Who connects to the port of a relayed link has no key for what is behind it."""
    with relayed() as (lab, _):
        lab.introduce(**NOWHERE)
        wait(lambda: is_linked(lab, 0, 1) and is_linked(lab, 1, 0))
        port = lab.nodes[1].run(lab.nodes[1].plane.relays.port)
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.settimeout(10)
            stranger.sendall(bytes(4096))
            with suppress(ConnectionResetError):
                while stranger.recv(4096):
                    pass
        assert is_linked(lab, 0, 1)
