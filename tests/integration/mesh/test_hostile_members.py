"""One that knows the secret, is let in, and then says what no peer says."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from manta.mesh.door import Card, Trust, knock
from manta.mesh.peer.control import CONTROL, MEMBERSHIP
from manta.mesh.spake import scalar_of
from manta.node.plane import envelope
from manta.transports.addresses import split_host
from manta.transports.errors import DownReason, LinkDown
from manta.transports.interface import Buffer, Link
from manta.transports.membership.membership import MOST_MESSAGES
from manta.transports.membership.messages import Gossip, encode
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.transport import ZmqTransport
from tests.integration.mesh.conftest import PATIENCE, SECRET, Peers

pytestmark = pytest.mark.timeout(300)


class Member:
    """A key that was let in, with a link to who let it in, and nothing else."""

    def __init__(self, door: str) -> None:
        keys = KeyPair.generate()
        self.transport = ZmqTransport(keys)
        host, port = split_host(door)
        own = Card(keys.public, "hostile", ())
        (seed, *_) = knock((host, port or 0), Trust(scalar_of(SECRET)), own)
        self.is_up, self.ended = threading.Event(), threading.Event()
        self.reasons: list[DownReason] = []
        self.link = self.transport.dial(seed.addresses[0], seed.key, self)

    def link_up(self, link: Link) -> None:
        self.is_up.set()

    def link_down(self, link: Link, reason: DownReason) -> None:
        self.reasons.append(reason)
        if self.is_up.is_set():
            self.ended.set()

    def received(self, link: Link, message: list[Buffer]) -> None: ...

    def say(self, data: bytes) -> None:
        self.link.send([envelope.pack("", "", envelope.Aside(data))])


@pytest.fixture
def hostile(peers: Peers) -> Iterator[Member]:
    """Beside two peers that have met."""
    one, _ = peers.add(2)
    peers.meet(2)
    member = Member(one.address)
    assert member.is_up.wait(PATIENCE)
    yield member
    member.transport.close()


def go_on(peers: Peers) -> None:
    """The others do, and nobody else is among them."""
    assert peers.each(lambda mesh: mesh.all_reduce(1, timeout=PATIENCE)) == [2, 2]
    assert peers.each(lambda mesh: mesh.size) == [2, 2]


@pytest.mark.parametrize(
    "said",
    [b"", b"x", MEMBERSHIP + os.urandom(200), CONTROL + os.urandom(200), CONTROL + b"\x91\x0a"],
    ids=["nothing", "no-kind", "membership", "control", "half"],
)
def test_who_sends_garbage_loses_its_link_and_nobody_else_does(
    peers: Peers, hostile: Member, said: bytes
) -> None:
    hostile.say(said)
    assert hostile.ended.wait(PATIENCE)
    assert hostile.reasons[-1] is DownReason.PROTOCOL
    go_on(peers)


def test_who_floods_is_cut_and_nobody_is_lost(peers: Peers, hostile: Member) -> None:
    empty = MEMBERSHIP + encode(Gossip(()))
    with suppress(LinkDown):  # cut while it says something
        for _ in range(3 * MOST_MESSAGES):
            if hostile.ended.is_set():
                break
            hostile.say(empty)
    assert hostile.ended.wait(PATIENCE)
    go_on(peers)
