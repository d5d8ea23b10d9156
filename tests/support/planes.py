"""Planes of several nodes in one process, with attempts that speak to them as tasks do."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msgspec import structs

from manta.light.wire import MessageSocket
from manta.node.peers.book import PeersAnew
from manta.node.peers.directory import DirectoryChanged
from manta.node.peers.rosters import RosterChanged
from manta.node.plane.local import LocalSocket
from manta.node.plane.parcels import SEALS
from manta.node.plane.plane import Plane
from manta.node.policy.rules import SumLimit
from manta.protocol.base import Instance
from manta.protocol.peers import Departed, Departure, LinksTold, Peer
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.transports.addresses import join_address
from manta.transports.relay.server import RelayingTransport
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair

SWARM = "swarm-1"
MEMORY = 256 << 20


class TaskEnd:
    """A connection of an attempt, at its end."""

    def __init__(self, fd: int) -> None:
        self.socket = MessageSocket.of(fd)
        self.socket.socket.settimeout(20)
        self._receives = threading.Lock()
        self._number = 0

    def call(self, kind: str, /, **fields: Any) -> Any:
        """The value that is answered, or None; raises LookupError with kind and sentence."""
        self.begin(kind, **fields)
        return self.end()

    def begin(self, kind: str, /, value: bytes | None = None, **fields: Any) -> None:
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

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        with self._receives:
            return self.socket.receive()

    def end(self) -> Any:
        received = self.receive()
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
        return message["plain"] if "plain" in message else message.get("data")

    def close(self) -> None:
        """Also while another thread receives, which then has ended: it would go on with whatever
        has the descriptor's number next."""
        with suppress(OSError):
            self.socket.socket.shutdown(socket.SHUT_RDWR)
        with self._receives:
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


@dataclass(frozen=True)
class Place:
    """What a plane may have. `local`: a folder for Unix sockets, if they are to be linked as one
    user's on one machine."""

    most: int = MEMORY
    disk: int = MEMORY
    host: str = "127.0.0.1"
    local: Path | None = None
    relay: tuple[str, str] | None = None
    over_links: bool = False
    port: int = 0
    bulk_port: int = 0


class Node:
    """A node's plane, without its daemon."""

    def __init__(self, number: int, folder: Path, place: Place, *, of: Node | None = None) -> None:
        """`of` is the one that it takes the place of."""
        self.number, self.folder, self.place = number, folder, place
        self.id = f"id-{number}"
        self.alias = f"node-{number}"
        self.keys: KeyPair = KeyPair.generate() if of is None else of.keys
        admission = Admission()
        self.transport = RelayingTransport(
            self.keys,
            may=lambda key, other: self.plane.known.share(key, other),
            serves=lambda key: self.plane.known.is_known(key),
        )
        self.bulk = BulkEndpoint(self.keys, admission)
        at = "" if place.over_links else self.bulk.listen(join_address(place.host, place.bulk_port))
        self.wanted: set[str] = set()
        self.unsettled: list[Instance] = []
        """Attempts that wait until the manager has what they wrote, as often as they do."""
        self.broken: list[tuple[Instance, str]] = []
        self.lost_attempts: list[tuple[Instance, str]] = []
        self.sums: list[tuple[Instance, int]] = []
        self.stops: list[tuple[Instance, int, str]] = []
        self.reported: LinksTold = ()
        """Its links with others."""
        self.is_closed = False
        local = place.local
        self.plane = Plane(
            self.id,
            self.transport,
            self.bulk,
            admission,
            self,
            bulk_port=int(at.rpartition(":")[2] or 0),
            memory=place.most,
            folder=folder,
            disk=place.disk,
            local=None if local is None else LocalSocket(self.bulk, local, self.keys.public),
            relay=place.relay,
            over_links=place.over_links,
        )
        where = join_address(place.host, place.port)
        listener = self.transport.listen(where, self.plane.links, admission)
        self.peer = Peer(self.id, self.alias, self.keys.public, (listener.address,))

    def want_roster(self, swarm_id: str, wanted: bool) -> None:
        (self.wanted.add if wanted else self.wanted.discard)(swarm_id)

    def settle(self, at: Instance) -> None:
        self.unsettled.append(at)

    def broke(self, at: Instance, why: str) -> None:
        self.broken.append((at, why))

    def stopped(self, at: Instance, size: int, why: str) -> None:
        self.stops.append((at, size, why))

    def summed(self, at: Instance, size: int) -> None:
        self.sums.append((at, size))

    def lost(self, at: Instance, how: str) -> None:
        self.lost_attempts.append((at, how))

    def links_changed(self, links: LinksTold) -> None:
        self.reported = links

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

    def end(self, at: Instance, *, counts: bool = True) -> None:
        """Ends an attempt, and waits until it may be told."""
        ended = threading.Event()
        self.run(self.plane.end, at, counts=counts, then=ended.set)
        assert ended.wait(20)

    def settled(self) -> None:
        """Waits until all is on disk, and gone from there, that was to be."""
        done = threading.Event()
        self.run(lambda: self.plane.spool.do(lambda: None, done.set))
        assert done.wait(20)

    def again(self) -> Node:
        """Its plane ends, and begins again with what is on disk."""
        self.close()
        return Node(self.number, self.folder, self.place, of=self)

    def attempt(self, at: Instance, sums: SumLimit | None = None) -> TaskEnd:
        self.run(self.plane.begin, at, sums)
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

    def __init__(self, nodes: list[Node], swarm_id: str = SWARM) -> None:
        self.nodes = nodes
        self.swarm_id = swarm_id
        self.epoch = "epoch-1"

    def at(self, rank: int, attempt: int = 0, iteration: int = 0) -> Instance:
        return Instance(self.swarm_id, "worker", rank, iteration, attempt)

    def restart(self, *numbers: int) -> None:
        """Those planes end, all at the same time, and begin again."""
        for at in numbers:
            self.nodes[at] = self.nodes[at].again()
        self.introduce()

    def introduce(self, **addresses: tuple[str, ...]) -> None:
        """All are told of all; `addresses` are those that differ, as `n1=("tcp://...",)`."""
        for node in self.nodes:
            self.introduce_to(node, **addresses)

    def introduce_to(self, node: Node, **addresses: tuple[str, ...]) -> None:
        """One is told of all."""
        peers = tuple(
            structs.replace(one.peer, addresses=addresses.get(f"n{number}", one.peer.addresses))
            for number, one in enumerate(self.nodes, 1)
        )
        told = DirectoryChanged(self.swarm_id, self.epoch, True, peers)
        node.run(node.plane.told, PeersAnew((told,), ()) if self.swarm_id == SWARM else told)

    def remove(self, number: int) -> None:
        """The others are told that the node is lost."""
        gone = self.nodes[number]
        departed = Departed(gone.id, gone.alias, gone.peer.key, Departure.LOST)
        told = DirectoryChanged(self.swarm_id, self.epoch, False, (), (departed,))
        for node in self.nodes:
            if not node.is_closed:
                node.run(node.plane.told, told)

    def enroll(
        self,
        on: Sequence[int] | None = None,
        iteration: int = 0,
        told: Sequence[Node] | None = None,
        given_up: Mapping[int, str] | None = None,
        attempts: Mapping[int, int] | None = None,
        **states: str,
    ) -> None:
        """All, or those who are `told`, learn who runs: one on each node, or each rank on that one.
        `states` are those of ranks, as `r1="FINISHED"`; `given_up` says why of ranks, `attempts`
        the number of each."""
        why, numbers = given_up or {}, attempts or {}
        placed = [self.nodes[at] for at in on] if on is not None else self.nodes
        instances = tuple(
            RosterInstance(
                rank,
                node.id,
                node.alias,
                numbers.get(rank, 0),
                states.get(f"r{rank}", "RUNNING"),
                why.get(rank, ""),
            )
            for rank, node in enumerate(placed)
        )
        task = RosterTask("worker", "RUNNING", len(placed), instances=instances)
        roster = Roster(self.epoch, iteration, {"worker": task}, {})
        for node in self.nodes if told is None else told:
            if not node.is_closed:
                node.run(node.plane.told, RosterChanged(self.swarm_id, roster))


@contextmanager
def planes(
    count: int,
    most: int = MEMORY,
    host: str = "127.0.0.1",
    local: Path | None = None,
    relay: tuple[str, str] | None = None,
    disk: int = MEMORY,
) -> Iterator[Planes]:
    """See Place."""
    nodes: list[Node] = []
    place = Place(most, disk, host, local, relay)
    with TemporaryDirectory() as folder:
        try:
            for number in range(1, count + 1):
                nodes.append(Node(number, Path(folder, str(number)), place))
            yield Planes(nodes)
        finally:
            for node in nodes:
                node.close()
