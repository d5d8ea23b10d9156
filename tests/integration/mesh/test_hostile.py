"""Who comes to a door and is no peer, and who may talk to whom."""

from __future__ import annotations

import os
import socket

import pytest

from manta import Mesh
from manta.light.errors import NothingSent, Timeout, UnknownPeer
from manta.mesh.client import Client
from manta.mesh.door import AT_ONCE, BUSY, FAILURES, HELLO, REFUSED, SECRET
from manta.mesh.errors import JoinFailed
from manta.mesh.peer.rosters import id_of
from manta.mesh.settings import Keys
from manta.transports.addresses import split_host
from tests.integration.mesh.conftest import PATIENCE, Peers
from tests.integration.mesh.conftest import SECRET as WORDS

pytestmark = pytest.mark.timeout(300)


def knock(mesh: Mesh, *said: bytes) -> bytes:
    """What the door answers, until it ends the connection."""
    found = b""
    host, port = split_host(mesh.address)
    with socket.create_connection((host, port or 0), timeout=PATIENCE) as stream:
        try:
            for one in said:
                stream.sendall(one)
            while data := stream.recv(4096):
                found += data
        except ConnectionError:
            pass
    return found


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 1000,
        (5).to_bytes(4, "big") + b"hello",
        (len(HELLO) + 33).to_bytes(4, "big") + HELLO + SECRET + bytes(32),
        (len(HELLO) + 1).to_bytes(4, "big") + HELLO + b"\x09",
    ],
    ids=["http", "too-large", "no-peer", "no-point", "no-kind"],
)
def test_who_is_no_peer_learns_nothing_and_keeps_nobody_out(peers: Peers, said: bytes) -> None:
    (one,) = peers.add()
    assert knock(one, said) in (b"", len(REFUSED).to_bytes(4, "big") + REFUSED)
    peers.add()
    peers.meet(2)


def test_those_that_say_nothing_keep_others_out_for_seconds_at_most(peers: Peers) -> None:
    (one,) = peers.add()
    host, port = split_host(one.address)
    silent = [socket.create_connection((host, port or 0)) for _ in range(2 * AT_ONCE)]
    try:
        peers.add()
        peers.meet(2)
    finally:
        for stream in silent:
            stream.close()


def test_who_guesses_is_let_in_no_more_for_a_while(peers: Peers) -> None:
    (one,) = peers.add()
    frame = HELLO + SECRET + bytes.fromhex("58" + 31 * "66")  # the base point
    proofs = (32).to_bytes(4, "big") + os.urandom(32)
    answers = [
        knock(one, len(frame).to_bytes(4, "big") + frame, proofs) for _ in range(FAILURES + 2)
    ]
    told, busy = 4 + 32 + 4 + len(REFUSED), 4 + len(BUSY)
    assert [len(answer) for answer in answers] == [told] * FAILURES + [busy] * 2


def test_only_neighbors_exchange_letters(peers: Peers) -> None:
    peers.add(4, topology="ring")
    peers.meet(4)
    found = peers.each(lambda mesh: [peer.rank for peer in mesh.neighbors])
    assert found == [[1, 3], [0, 2], [1, 3], [0, 2]]
    one, two, three, four = peers.each(lambda mesh: mesh)
    one.send(two.id, "tag", 1)
    assert two.receive(one.id, "tag", PATIENCE) == 1
    with pytest.raises(UnknownPeer, match="they are not neighbors"):
        one.send(three.id, "tag", 1)
    one.broadcast("news", 7)
    assert [two.get_broadcast("news", PATIENCE), four.get_broadcast("news", PATIENCE)] == [7, 7]
    with pytest.raises((Timeout, NothingSent)):
        three.get_broadcast("news", 0.5)
    assert peers.each(lambda mesh: mesh.all_reduce(1)) == [4] * 4


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"topology": "square"}, "The topology is 'square'"),
        ({"peers": ["nowhere"]}, "has no port"),
        ({"listen": "999.1.1.1"}, "choose another host"),
        ({"name": "\n"}, "printable"),
        ({"timeout": 0}, "more than 0"),
        ({"timeout": float("nan")}, "more than 0"),
        ({"listen": 7000}, "listen is a str, HOST or HOST:PORT, not 7000"),
        ({"peers": [7]}, "peers are a str HOST:PORT each, and one is 7"),
        ({"peers": None}, "peers are a str HOST:PORT each, and one is None"),
        ({"peers": "127.0.0.1:1,127.0.0.1:2"}, "it must be a host's name"),
        ({"secret": b"bytes"}, "secret is a str, or Keys, not a bytes"),
        ({"secret": "half of \ud83d"}, "halves of characters"),
        ({"secret": Keys("short")}, "A key is a str of 40 characters"),
        ({"secret": Keys("\x7f" * 40)}, "is not a CURVE key"),
    ],
)
def test_an_argument_that_is_wrong_is_named(options: dict, why: str) -> None:
    given = {"secret": WORDS, "timeout": 2.0, **options}
    with pytest.raises((JoinFailed, TypeError, ValueError), match=why):
        Mesh.join(**given)


def test_a_process_that_is_left_before_it_has_joined_ends_without_a_word(
    capfd: pytest.CaptureFixture[str],
) -> None:
    client = Client.begin()
    client.leave(0.0)
    assert client.is_gone
    assert capfd.readouterr() == ("", "")


def test_an_id_follows_from_the_key(peers: Peers) -> None:
    (one,) = peers.add()
    assert one.id == id_of(one.key)
