"""A member of a mesh that says of another what is not so."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from manta import Mesh
from manta.light.wire import MessageSocket
from manta.mesh.peer.control import MEMBERSHIP
from manta.mesh.peer.join import Join, Place
from manta.mesh.peer.process import Process
from manta.mesh.settings import FD
from manta.transports.membership.messages import (
    Alive,
    Claim,
    Dead,
    Gossip,
    Left,
    Suspect,
    encode,
)
from tests.integration.mesh.conftest import PATIENCE, Peers

pytestmark = pytest.mark.timeout(300)

LASTS = 6.0
"""Seconds of lies: longer than a suspicion of one that does not answer."""
LIES: dict[str, Callable[[Alive, str], Claim]] = {
    "suspect": lambda of, me: Suspect(of.key, of.session, of.incarnation, me),
    "dead": lambda of, me: Dead(of.key, of.session, of.incarnation, me),
    "dead, later": lambda of, me: Dead(of.key, of.session, of.incarnation + 900, me),
    "left": lambda of, me: Left(of.key, of.session, of.incarnation),
    "elsewhere": lambda of, me: Alive(
        of.key, of.session, of.incarnation + 1, of.order, of.name, ("tcp://127.0.0.1:9",)
    ),
}


class Liar:
    """The process beside a peer, in this one, so that it can be made to say anything."""

    def __init__(self, theirs: socket.socket, folder: Path) -> None:
        self._client = MessageSocket(theirs)
        self._place = Place(str(folder))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        received = self._client.receive()
        assert received is not None
        message, _ = received
        join = msgspec.convert(message["join"], Join)
        self.process = Process(self._client, os.getpid(), message["n"], join, self._place)
        self.process.begin()
        self.process.serve()

    def say(self, of: Mesh, lie: str) -> None:
        """To all others."""

        def said() -> None:
            control = self.process.control
            assert control._membership is not None
            found = control._membership.peer(of.key)
            assert found is not None
            claim = LIES[lie](found[0], control.known.own.key)
            for other in control.alive():
                key = control.known.peers[other].key
                control.plane.aside(key, MEMBERSHIP + encode(Gossip((claim,))))

        self.process._run(said)

    def close(self) -> None:
        self._thread.join(PATIENCE)
        self.process.close()
        for one in self.process._listening:
            one.close()
        self._client.close()


@pytest.fixture
def liar(peers: Peers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Liar]:
    """The third peer of a mesh, which takes part in all that the others do."""
    peers.add(2)
    ours, theirs = socket.socketpair()
    monkeypatch.setenv(FD, str(ours.detach()))
    with closing(Liar(theirs, tmp_path / "values")) as liar:
        (mesh,) = peers.add(name="liar")
        yield liar
        mesh.leave()


@pytest.mark.parametrize("lie", LIES)
def test_who_answers_stays_in_the_mesh_whatever_a_member_says(
    peers: Peers, liar: Liar, lie: str
) -> None:
    one, victim, _ = peers.all
    peers.meet(3)
    until = time.monotonic() + LASTS
    while time.monotonic() < until:
        liar.say(victim, lie)
        assert peers.each(lambda mesh: mesh.all_reduce(1, timeout=PATIENCE)) == [3] * 3
    happened = {event["event"] for event in one.events(0.1)}
    assert not happened & {"died", "left"}
    with one.lock("any", PATIENCE):
        assert one.size == 3
