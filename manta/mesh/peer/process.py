"""A peer's process: what is asked of it, and its plane with the control beside."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from manta.light.wire import BrokenFrame, MessageSocket
from manta.mesh.door import Card, Door, Trust
from manta.mesh.faults import Faults
from manta.mesh.peer.control import Control
from manta.mesh.peer.join import Doors, Join, Place
from manta.mesh.peer.knocking import Address, JoinFailed, get_in
from manta.mesh.peer.leaving import Leaving
from manta.mesh.peer.listening import listen
from manta.mesh.peer.plane import PeerPlane
from manta.mesh.peer.pulse import BEAT, Pulse
from manta.mesh.peer.watching import runs, sender_of
from manta.mesh.said import Word
from manta.mesh.spake import scalar_of
from manta.node.errors import OperatorError
from manta.node.plane.endpoints import Endpoints, disk_room, set_up
from manta.roster.topologies import Topology
from manta.transports.addresses import join_address
from manta.transports.errors import TransportError

LOOK = 1.0
"""Seconds after which it is looked whether this machine's addresses are others."""
ENDING = 15
"""Seconds from the end of your process to its own, whatever it does."""

log = logging.getLogger("manta.mesh")


class Process:
    def __init__(
        self, client: MessageSocket, pid: int, number: int, join: Join, place: Place
    ) -> None:
        """Raises OperatorError, TransportError, OSError, ValueError."""
        self._client = client
        self._pid = pid
        self._pulse: Pulse | None = None
        self._stands_still = False
        self._looks_at = 0.0
        self._sending = threading.Lock()
        self._join_number = number
        self._join = join
        self._hosts = None if place.hosts is None else frozenset(place.hosts)
        listening = self._listening = listen(place.listen or join.listen, place.advertised)
        links, bulk_socket = listening.links, listening.bulk
        keys = self._keys = join.pair()
        ends = self._ends = Endpoints(keys, lambda: self._plane.known)
        ends.bulk.listen(join_address(bulk_socket.host, bulk_socket.port), fd=bulk_socket.fd)
        own = Card(keys.public, join.name, links.addresses)
        self.control = Control(
            own,
            Topology.of(join.topology),
            self._tell,
            self._entered,
            self._broken,
            self._may_dial,
        )
        folder = Path(place.folder)
        self._plane = PeerPlane(
            self.control.me,
            ends.transport,
            ends.bulk,
            ends.admission,
            self.control,
            bulk_port=bulk_socket.port,
            memory=place.memory,
            local=ends.local(),
            folder=folder,
            disk=disk_room(folder),
        )
        if join.faults is not None:
            self._plane.links.inject(Faults.of(join.faults), join.name, join.size)
        self._door: Door | None = None
        self._meeting = threading.Lock()
        self._run(lambda: self.control.begin(self._plane, ends.transport.io))
        ends.transport.listen(
            join_address(links.host, links.port), self._plane.links, ends.admission, fd=links.fd
        )

    def _run(self, job: Callable[[], Any]) -> Any:
        return self._ends.transport.io.run(job, 10.0)

    # --- joining --------------------------------------------------------------------------------

    def begin(self) -> None:
        """Opens the door, and joins by those of others. Raises JoinFailed."""
        join = self._join
        w = None if join.secret is None else scalar_of(join.secret)
        trust = Trust(w, frozenset(join.keys))
        door = socket.socket(fileno=os.dup(self._listening.door.fd))
        status = partial(self._run, self.control.status)
        self._door = Door(door, trust, self._admitted, status, self._keys)
        doors = [Address(one, trust) for one in join.peers]
        cards = get_in(doors, self.control.known.own, join.timeout, self._may_dial)
        self._ends.transport.call_soon(partial(self.control.join, cards))

    def _admitted(self, card: Card) -> list[Card]:
        cards: list[Card] = self._run(partial(self.control.let_in, card))
        return cards

    def _may_dial(self, host: str) -> bool:
        return self._hosts is None or host in self._hosts

    def _meet(self, number: int, doors: Doors, timeout: float) -> None:
        """Joins the mesh of the first door that lets this peer in: the two become one."""
        with self._meeting:
            try:
                known = [
                    Address(address, Trust(scalar_of(secret)))
                    for addresses, secret in doors
                    for address in addresses
                ]
                cards = get_in(known, self.control.known.own, timeout, self._may_dial)
            except (JoinFailed, ValueError) as error:
                self.fail(number, JoinFailed.__name__, str(error))
                return
        for card in cards:
            self._ends.transport.call_soon(partial(self.control.admit, card))
        self.answer(number)

    def _entered(self) -> None:
        self.answer(
            self._join_number,
            view=self.control.present(),
            id=self.control.me,
            name=self.control.known.own.name,
            door=self._listening.address,
            doors=list(self._listening.door.addresses),
            key=self.control.known.own.key,
            pid=os.getpid(),
        )
        self._pulse = Pulse(time.monotonic())
        self._beat()

    def _beat(self) -> None:
        """Looks whether your process runs, and asks for a sign of that."""
        if self._pulse is None:  # it leaves
            return
        was, now = self._stands_still, time.monotonic()
        is_seen = self._pulse.is_quiet(now) and runs(self._pid)
        self._stands_still = still = self._pulse.stands_still(now, runs=is_seen)
        if still and not was:
            log.warning("Your process stands still: this peer says so, and waits.")
            self.control.pause()
        elif was and not still:
            self.control.resume()
        if not still:  # what it has not read yet waits there
            self._send({"k": "beat", "n": 0})
        if now >= self._looks_at:
            self._looks_at = now + LOOK
            if (addresses := self._listening.links.look()) != self.control.known.own.addresses:
                self.control.moved(addresses)
        self._ends.transport.io.call_later(BEAT, self._beat)

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
                self._pulse = None  # nothing is read any more
                Leaving(self._run, self._plane, self.control).leave(message["timeout"])
                self.answer(message["n"])
                return
            if message["k"] == "meet":
                doors = msgspec.convert(message["doors"], Doors)
                meeting = message["n"], doors, message["timeout"]
                threading.Thread(target=self._meet, args=meeting, daemon=True).start()
                continue
            self._ends.transport.call_soon(partial(self._serve, message))

    def _serve(self, message: dict[str, Any]) -> None:
        number, control = message["n"], self.control
        if self._pulse is not None:
            self._pulse.heard(time.monotonic())
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
                control.locks.lock(
                    message["name"],
                    message["timeout"],
                    lambda _: self.answer(number),
                    partial(self.fail, number),
                )
            case "unlock":
                control.locks.unlock(message["name"])
                self.answer(number)
            case "word":
                control.say_to(message["to"], Word(message["topic"], message["data"]))
                self.answer(number)
            case "find":
                self.answer(number, ids=control.known.find(message["name"]))
            case "beat":
                return
            case "status":
                self.answer(number, status=control.status())
            case kind:
                self.fail(number, "RequestFailed", f"A mesh has no request {kind!r}.")

    def close(self) -> None:
        if self._door is not None:
            self._door.close()
        self._ends.transport.call_soon(self._plane.close)
        self._ends.close()


def run(fd: int, place: Place) -> None:
    """The whole life of a peer's process, for who has the other end of that socket."""
    set_up(logging.WARNING)
    client = MessageSocket.of(fd)
    process: Process | None = None
    try:
        pid = sender_of(client.socket)
        if (received := client.receive()) is None:
            return
        message, _ = received
        if message["k"] != "join":  # your process has thought better of it
            return
        try:
            join = msgspec.convert(message["join"], Join)
            process = Process(client, pid, message["n"], join, place)
            process.begin()
        except (JoinFailed, OperatorError, TransportError, OSError, ValueError) as error:
            told = {"k": "error", "n": message["n"]}
            client.send({**told, "kind": JoinFailed.__name__, "sentence": str(error)})
        else:
            process.serve()
    except (OSError, BrokenFrame):
        return  # your process has ended
    finally:
        signal.alarm(ENDING)
        if process is not None:
            process.close()
        shutil.rmtree(place.folder, ignore_errors=True)
