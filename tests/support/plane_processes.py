"""Processes of planes, with what a node's daemon is to each."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
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
    pair,
)
from manta.protocol.base import Instance
from manta.protocol.peers import Peer
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.transports.security.keys import KeyPair
from tests.support.planes import MEMORY, SWARM, TaskEnd


class Daemon:
    """What a node's daemon is to its plane."""

    def __init__(self, number: int, folder: Path, *, is_local: bool = True) -> None:
        self.id, self.alias = f"id-{number}", f"node-{number}"
        self.keys = KeyPair.generate()
        self.folder = folder
        self._is_local = is_local
        self.begin()

    def begin(self) -> None:
        """A plane, in the place of one that has ended."""
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        self.peer = Peer(self.id, self.alias, self.keys.public, (f"tcp://127.0.0.1:{port}",))
        ours, theirs = pair()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "manta.node.plane", str(theirs)], pass_fds=[theirs]
        )
        socket.close(theirs)
        self.orders: OrderSocket[ToDaemon] = OrderSocket(ours, ToDaemon)
        keys, folder = self.keys, str(self.folder)
        serve = Serve(
            self.id, keys.public, keys.secret, MEMORY, folder, True, is_local=self._is_local
        )
        bulk = socket.create_server(("127.0.0.1", 0))
        self.orders.send(serve, [listening.fileno(), bulk.fileno()])
        for each in (listening, bulk):
            each.close()

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

    def introduced(self, peers: Sequence[Daemon], **states: str) -> None:
        """It is told who is there, each with one instance; `states` as `r1="FINISHED"`."""
        assert isinstance(self.expect(), Serving)
        self.meet(peers, **states)

    def meet(self, peers: Sequence[Daemon], **states: str) -> None:
        """The same, later."""
        instances = tuple(
            RosterInstance(rank, node.id, node.alias, 0, states.get(f"r{rank}", "RUNNING"))
            for rank, node in enumerate(peers)
        )
        task = RosterTask("w", "RUNNING", len(peers), instances=instances)
        roster = RosterChanged(SWARM, Roster("e", 0, {"w": task}, {}))
        known = DirectoryChanged(SWARM, "e", True, tuple(node.peer for node in peers))
        self.orders.send(Anew((known,), ()))
        self.orders.send(Rostered(roster))

    def end(self, at: Instance) -> None:
        """Waits until it may be told."""
        self.orders.send(End(at, counts=True))
        while self.expect() != Ended(at):
            pass

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(20)
        self.orders.close()

    def close(self) -> None:
        self.orders.close()
        assert self.process.wait(20) == 0


@contextmanager
def daemons(count: int, folder: Path, *, is_local: bool = True) -> Iterator[list[Daemon]]:
    """`is_local`: what the machine gives them to share, they do."""
    made: list[Daemon] = []
    try:
        for number in range(1, count + 1):
            made.append(Daemon(number, folder / str(number), is_local=is_local))
        yield made
    finally:
        for daemon in made:
            daemon.close()
