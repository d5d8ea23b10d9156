"""The process of a plane, as a daemon starts and ends it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from manta.node.peers.directory import DirectoryChanged
from manta.node.peers.rosters import RosterChanged
from manta.node.plane.orders import (
    Anew,
    Attach,
    End,
    Ended,
    Linked,
    OrderSocket,
    Rostered,
    Serve,
    Serving,
    ToDaemon,
    Want,
    pair,
)
from manta.protocol.base import Instance
from manta.protocol.peers import Peer
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.transports.security.keys import KeyPair
from tests.support.planes import MEMORY, SWARM, TaskEnd


class Daemon:
    """What a node's daemon is to its plane."""

    def __init__(self, number: int, folder: Path) -> None:
        self.id, self.alias = f"id-{number}", f"node-{number}"
        self.keys = KeyPair.generate()
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        self.peer = Peer(self.id, self.alias, self.keys.public, (f"tcp://127.0.0.1:{port}",))
        ours, theirs = pair()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "manta.node.plane", str(theirs)], pass_fds=[theirs]
        )
        socket.close(theirs)
        self.orders: OrderSocket[ToDaemon] = OrderSocket(ours, ToDaemon)
        serve = Serve(
            self.id, self.keys.public, self.keys.secret, MEMORY, str(folder), listens=True
        )
        self.orders.send(serve, [listening.fileno()])
        listening.close()

    def expect(self) -> ToDaemon:
        """What comes next, besides how links are."""
        while True:
            while (found := self.orders.next()) is None:
                self.orders.read()
            if not isinstance(found[0], Linked):
                return found[0]

    def attach(self, at: Instance) -> TaskEnd:
        ours, theirs = socket.socketpair()
        with theirs:
            self.orders.send(Attach(at), [theirs.fileno()])
        return TaskEnd(ours.detach())

    def close(self) -> None:
        self.orders.close()
        assert self.process.wait(20) == 0


@contextmanager
def daemons(count: int, folder: Path) -> Iterator[list[Daemon]]:
    made: list[Daemon] = []
    try:
        for number in range(1, count + 1):
            made.append(Daemon(number, folder / str(number)))
        yield made
    finally:
        for daemon in made:
            daemon.close()


def test_planes_of_two_nodes_carry_letters_and_end_with_their_daemons(tmp_path: Path) -> None:
    with daemons(2, tmp_path) as (one, two):
        peers = (one.peer, two.peer)
        instances = tuple(
            RosterInstance(rank, node.id, node.alias, 0, "RUNNING")
            for rank, node in enumerate((one, two))
        )
        roster = Roster("e", 0, {"w": RosterTask("w", "RUNNING", 2, instances=instances)}, {})
        for node in (one, two):
            assert isinstance(node.expect(), Serving)
            node.orders.send(Anew((DirectoryChanged(SWARM, "e", True, peers),), ()))
        at = [Instance(SWARM, "w", rank, 0, 0) for rank in range(2)]
        ends = [node.attach(at[rank]) for rank, node in enumerate((one, two))]
        for node in (one, two):
            assert node.expect() == Want(SWARM, True)
            node.orders.send(Rostered(RosterChanged(SWARM, roster)))
        for value in (b"small", bytes(1_000_000)):
            ends[0].call("send_letter", to="id-2", tag=str(len(value)), value=value, timeout=20.0)
            tag = str(len(value))
            got = ends[1].call("receive_letter", source="id-1", tag=tag, number=0, timeout=20.0)
            assert got == value
        one.orders.send(End(at[0], counts=True))
        assert one.expect() == Ended(at[0])
        assert ends[0].socket.receive() is None
        for end in ends:
            end.close()


def test_a_plane_whose_daemon_is_gone_before_it_begins_ends() -> None:
    ours, theirs = pair()
    ours.close()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "manta.node.plane", str(theirs)], pass_fds=[theirs]
    )
    socket.close(theirs)
    assert process.wait(20) == 0
