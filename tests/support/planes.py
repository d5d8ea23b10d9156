"""Planes of several nodes in one process, with attempts that speak to them as tasks do."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from manta.light.wire import MessageSocket
from manta.node.peers.book import PeersAnew
from manta.node.peers.directory import DirectoryChanged
from manta.node.peers.rosters import RosterChanged
from manta.node.plane.parcels import SEALS
from manta.node.plane.plane import Plane
from manta.protocol.base import Instance
from manta.protocol.peers import Departed, Departure, Peer
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.transport import ZmqTransport

SWARM = "swarm-1"
MEMORY = 256 << 20


class TaskEnd:
    """A connection of an attempt, at its end."""

    def __init__(self, fd: int) -> None:
        self.socket = MessageSocket.of(fd)
        self.socket.socket.settimeout(20)
        self._number = 0

    def call(self, kind: str, **fields: Any) -> Any:
        """The value that is answered, or None; raises LookupError with kind and sentence."""
        self.begin(kind, **fields)
        return self.end()

    def begin(self, kind: str, value: bytes | None = None, **fields: Any) -> None:
        self._number += 1
        message = {"k": kind, "n": self._number, **fields}
        fds: tuple[int, ...] = ()
        if value is not None and len(value) > 65536:
            fds = (memory(value),)
            message["value"] = [len(value)]
        elif value is not None:
            message["value"] = value
        self.socket.send(message, fds)
        for fd in fds:
            os.close(fd)

    def end(self) -> Any:
        received = self.socket.receive()
        assert received is not None, "the plane closed the connection"
        message, fds = received
        assert message["n"] == self._number
        if message["k"] == "error":
            raise LookupError(message["kind"], message["sentence"])
        if fds:
            try:
                return os.pread(fds[0], message["size"], 0)
            finally:
                os.close(fds[0])
        return message.get("data")

    def close(self) -> None:
        self.socket.close()


def memory(value: bytes, seals: int = SEALS) -> int:
    """A memfd that holds the value, sealed as tasks do."""
    fd = os.memfd_create("value", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(fd, len(value))
    view = memoryview(value)
    while view:
        view = view[os.write(fd, view) :]
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


class Node:
    """A node's plane, without its daemon."""

    def __init__(self, number: int, most: int = MEMORY) -> None:
        self.id = f"id-{number}"
        self.alias = f"node-{number}"
        keys = KeyPair.generate()
        admission = Admission()
        self.transport = ZmqTransport(keys)
        self.bulk = BulkEndpoint(keys, admission)
        at = self.bulk.listen("tcp://127.0.0.1:0")
        self.wanted: set[str] = set()
        self.is_closed = False
        self.plane = Plane(
            self.id,
            self.transport,
            self.bulk,
            admission,
            self,
            bulk_port=int(at.rpartition(":")[2]),
            memory=most,
        )
        listener = self.transport.listen("tcp://127.0.0.1:0", self.plane.links, admission)
        self.peer = Peer(self.id, self.alias, keys.public, (listener.address,))

    def want_roster(self, swarm_id: str, wanted: bool) -> None:
        (self.wanted.add if wanted else self.wanted.discard)(swarm_id)

    def run(self, call: Any, *args: Any, **named: Any) -> Any:
        """On the plane's thread."""
        done: Future[Any] = Future()

        def job() -> None:
            try:
                done.set_result(call(*args, **named))
            except BaseException as error:
                done.set_exception(error)

        self.transport.call_soon(job)
        return done.result(10)

    def attempt(self, at: Instance) -> TaskEnd:
        self.run(self.plane.begin, at)
        return self.connect(at)

    def connect(self, at: Instance) -> TaskEnd:
        ours, theirs = socket.socketpair()
        self.run(self.plane.attach, at, theirs.detach())
        return TaskEnd(ours.detach())

    def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self.run(self.plane.close)
        self.transport.close()
        self.bulk.close()


class Planes:
    """Nodes with one instance each of a task."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.epoch = "epoch-1"

    def at(self, rank: int, attempt: int = 0, iteration: int = 0) -> Instance:
        return Instance(SWARM, "worker", rank, iteration, attempt)

    def introduce(self) -> None:
        """All are told of all."""
        peers = tuple(node.peer for node in self.nodes)
        told = DirectoryChanged(SWARM, self.epoch, True, peers)
        for node in self.nodes:
            node.run(node.plane.told, PeersAnew((told,), ()))

    def remove(self, number: int) -> None:
        """The others are told that the node is lost."""
        gone = self.nodes[number]
        departed = Departed(gone.id, gone.alias, gone.peer.key, Departure.LOST)
        told = DirectoryChanged(SWARM, self.epoch, False, (), (departed,))
        for node in self.nodes:
            if not node.is_closed:
                node.run(node.plane.told, told)

    def enroll(
        self,
        on: Sequence[int] | None = None,
        iteration: int = 0,
        given_up: Mapping[int, str] | None = None,
        **states: str,
    ) -> None:
        """All are told who runs: one on each node, or each rank on that one. `states` are those of
        ranks, as `r1="FINISHED"`; `given_up` says why of ranks."""
        why = given_up or {}
        placed = [self.nodes[at] for at in on] if on is not None else self.nodes
        instances = tuple(
            RosterInstance(
                rank,
                node.id,
                node.alias,
                0,
                states.get(f"r{rank}", "RUNNING"),
                why.get(rank, ""),
            )
            for rank, node in enumerate(placed)
        )
        task = RosterTask("worker", "RUNNING", len(placed), instances=instances)
        roster = Roster(self.epoch, iteration, {"worker": task}, {})
        for node in self.nodes:
            if not node.is_closed:
                node.run(node.plane.told, RosterChanged(SWARM, roster))


@contextmanager
def planes(count: int, most: int = MEMORY) -> Iterator[Planes]:
    nodes: list[Node] = []
    try:
        for number in range(1, count + 1):
            nodes.append(Node(number, most))
        yield Planes(nodes)
    finally:
        for node in nodes:
            node.close()
