"""The process of a peer of a mesh: `python -m manta.mesh.peer FD`, begun by `Mesh.join`.

It ends with your process, whose end of the socket is then closed.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from manta.light.wire import BrokenFrame, MessageSocket
from manta.mesh.door import Card, Door, NotAdmitted, Trust, knock
from manta.mesh.peer.control import Control
from manta.mesh.peer.plane import PeerPlane
from manta.mesh.spake import scalar_of
from manta.mesh.words import Join
from manta.node.errors import OperatorError
from manta.node.peers.listening import PeerSocket, bulk_address
from manta.node.plane.local import LocalSocket, shared_folder
from manta.protocol.addresses import is_loopback
from manta.roster.topologies import Topology
from manta.transports.addresses import join_address, join_host, split_host
from manta.transports.descriptors import raise_descriptor_limit
from manta.transports.errors import TransportError
from manta.transports.relay.server import RelayingTransport
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair

NICENESS = 5
LINGER = 3.0
"""Seconds for which a peer that leaves gives others what they need of it."""
AGAIN = 0.2
"""Seconds until a door is tried again that did not answer."""
ENDING = 15
"""Seconds from the end of your process to its own, whatever it does."""
DISK = 16 << 30

log = logging.getLogger("manta.mesh")


class Process:
    def __init__(self, client: MessageSocket, number: int, join: Join) -> None:
        """Raises OperatorError, TransportError, OSError."""
        self._client = client
        self._sending = threading.Lock()
        self._join_number = number
        self._join = join
        host = split_host(join.listen.removesuffix(":0"))[0]
        near = is_loopback(host)
        self._door_socket = PeerSocket(join.listen, near=near, setting="listen")
        links = PeerSocket(_after(join.listen, 1), near=near, setting="listen")
        bulk_socket = PeerSocket(_after(join.listen, 2), near=near, setting="listen")
        keys = KeyPair(join.public, join.private)
        admission = Admission()
        self._transport = RelayingTransport(
            keys,
            may=lambda key, other: self._plane.known.share(key, other),
            serves=lambda key: self._plane.known.is_known(key),
        )
        self._bulk = BulkEndpoint(keys, admission)
        self._bulk.listen(join_address(bulk_socket.host, bulk_socket.port), fd=bulk_socket.fd)
        self.control = Control(
            Card(keys.public, join.name, links.addresses),
            Topology.of(join.topology),
            self._tell,
            self._entered,
            self._broken,
        )
        self._plane = PeerPlane(
            self.control.me,
            self._transport,
            self._bulk,
            admission,
            self.control,
            bulk_port=bulk_socket.port,
            memory=join.memory,
            local=_local(self._bulk, keys.public),
            folder=Path(join.folder),
            disk=_disk(Path(join.folder)),
        )
        self._door: Door | None = None
        self._run(lambda: self.control.begin(self._plane, self._transport.io))
        self._transport.listen(
            join_address(links.host, links.port), self._plane.links, admission, fd=links.fd
        )
        self._sockets = links, bulk_socket

    def _run(self, job: Callable[[], Any]) -> Any:
        return self._transport.io.run(job, 10.0)

    # --- joining --------------------------------------------------------------------------------

    def begin(self) -> None:
        """Opens the door, and joins by those of others. Raises JoinFailed."""
        join = self._join
        w = None if join.secret is None else scalar_of(join.secret)
        trust = Trust(w, frozenset(join.keys))
        door = socket.socket(fileno=os.dup(self._door_socket.fd))
        status = partial(self._run, self.control.status)
        self._door = Door(door, trust, self._admitted, status)
        until = time.monotonic() + join.timeout
        cards = self._knock(trust, until) if join.peers else ()
        self._transport.call_soon(partial(self.control.join, cards))

    def _admitted(self, card: Card) -> list[Card]:
        cards: list[Card] = self._run(partial(self._admit, card))
        return cards

    def _admit(self, card: Card) -> list[Card]:
        self.control.admit(card)
        return self.control.cards()

    def _knock(self, trust: Trust, until: float) -> tuple[Card, ...]:
        """At each door in turn, until one lets this peer in. With none but its own it is the first
        in the mesh."""
        own = (self._door_socket.port, self.control.own.key)
        why: dict[str, str] = {}
        while True:
            is_own = 0
            for text in self._join.peers:
                host, port = split_host(text.removeprefix("tcp://"))
                if port is None:
                    raise JoinFailed(f"peers: {text!r} has no port: write HOST:PORT.")
                left = until - time.monotonic()
                try:
                    cards = knock((host, port), trust, self.control.own, max(0.1, min(5.0, left)))
                except NotAdmitted as error:
                    sentence = f"{text} does not let this peer into the mesh: {error}."
                    raise JoinFailed(sentence) from error
                except OSError as error:
                    why[text] = f"{text}: {error}"
                    continue
                if cards[0].key != own[1]:
                    return cards
                is_own += 1
            if is_own == len(self._join.peers):
                return ()
            if time.monotonic() + AGAIN > until:
                reasons = "; ".join(why.values())
                raise JoinFailed(
                    f"No peer of the mesh was reached within {self._join.timeout:g} s: {reasons}."
                )
            time.sleep(AGAIN)

    def _entered(self) -> None:
        own = self.control.own
        door = join_host(self._door_socket.host, self._door_socket.port)
        self.answer(
            self._join_number,
            view=self.control.present(),
            id=self.control.me,
            name=own.name,
            door=door,
            key=own.key,
        )

    # --- your process ---------------------------------------------------------------------------

    def answer(self, number: int, fds: tuple[int, ...] = (), **told: Any) -> None:
        self._send({"k": "answer", "n": number, **told}, fds)

    def fail(self, number: int, kind: str, sentence: str) -> None:
        self._send({"k": "error", "n": number, "kind": kind, "sentence": sentence})

    def _send(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        with self._sending, suppress(OSError):  # it has ended: reading finds out as well
            self._client.send(message, fds)

    def _tell(self, event: dict[str, Any]) -> None:
        self._send({"k": "event", "n": 0, "told": event})

    def _broken(self, why: str) -> None:
        log.error("Your process broke the protocol: %s", why)

    def serve(self) -> None:
        """Until your process has ended, which others find out, or wants to leave."""
        while (received := self._client.receive()) is not None:
            message, fds = received
            for fd in fds:
                os.close(fd)
            if message["k"] == "leave":
                self._leave(min(LINGER, message["timeout"]))
                self._run(self.control.leave)
                self.answer(message["n"])
                return
            self._transport.call_soon(partial(self._serve, message))

    def _serve(self, message: dict[str, Any]) -> None:
        number, control = message["n"], self.control
        match message["k"]:
            case "wait":
                control.wait(
                    message["size"],
                    message["timeout"],
                    lambda view: self.answer(number, view=view),
                    partial(self.fail, number),
                )
            case "open":
                ours, theirs = socket.socketpair()
                control.connect(message["of"], ours.detach())
                with theirs:
                    self.answer(number, (theirs.fileno(),))
            case "lock":
                control.lock(
                    message["name"],
                    message["timeout"],
                    lambda _: self.answer(number),
                    partial(self.fail, number),
                )
            case "unlock":
                control.unlock(message["name"])
                self.answer(number)
            case "find":
                self.answer(number, ids=control.find(message["name"]))
            case "status":
                self.answer(number, status=control.status())
            case kind:
                self.fail(number, "RequestFailed", f"A mesh has no request {kind!r}.")

    def _leave(self, timeout: float) -> None:
        """Once nobody needs anything from here."""
        until = time.monotonic() + timeout
        while time.monotonic() < until and self._run(lambda: self._plane.goes_on):
            time.sleep(0.005)

    def close(self) -> None:
        if self._door is not None:
            self._door.close()
        self._transport.call_soon(self._plane.close)
        self._transport.close()
        self._bulk.close()


class JoinFailed(Exception):
    """Nobody lets this peer in."""


def _after(listen: str, count: int) -> str:
    """The port that many after the one of the door; a free one if that is free as well."""
    for _ in range(count):
        listen = bulk_address(listen, 0)
    return listen


def _local(bulk: BulkEndpoint, own_key: str) -> LocalSocket | None:
    try:
        return LocalSocket(bulk, shared_folder(), own_key)
    except (OSError, TransportError) as error:
        log.warning("Peers on this machine are linked over TCP: %s", error)
        return None


def _disk(folder: Path) -> int:
    disk = os.statvfs(folder)
    return min(DISK, disk.f_bavail * disk.f_frsize // 2)


def main() -> int:
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for your process
    os.nice(NICENESS)
    raise_descriptor_limit()
    client = MessageSocket.of(int(sys.argv[1]))
    received = client.receive()
    if received is None:
        return 0
    message, _ = received
    number = message["n"]
    process: Process | None = None
    try:
        process = Process(client, number, msgspec.convert(message["join"], Join))
        process.begin()
    except (JoinFailed, OperatorError, TransportError, OSError, ValueError) as error:
        told = {"k": "error", "n": number, "kind": "JoinFailed", "sentence": str(error)}
        with suppress(OSError):
            client.send(told)
    else:
        with suppress(OSError, BrokenFrame):
            process.serve()
    signal.alarm(ENDING)
    if process is not None:
        process.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
