"""Planes of nodes whose tasks meet in collectives, with links and bulk between them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from manta.node.peers.directory import DirectoryChanged
from manta.node.plane.collectives import calls, messages
from manta.node.plane.collectives.desk import Desk
from manta.node.plane.collectives.desks import Nowhere
from manta.node.plane.collectives.early import MessageRoom
from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.spare import Footprint, Size
from manta.node.plane.parcels import Parts
from manta.node.plane.requests import CallCollective
from manta.node.plane.shares import Whose
from manta.protocol.base import Instance
from manta.protocol.peers import Departed, Departure, Peer
from manta.protocol.roster import Roster
from manta.transports.errors import RemoteProtocolError
from manta.transports.exchange.kept import Kept, KeptCall
from manta.transports.exchange.letters import Value
from manta.transports.exchange.messages import Parcel
from tests.simulation.network import LATENCY, SWARM, Clock, Connection, Linked
from tests.support.budgets import Budget

EPOCH = "e"
MEMORY, DISK = 64 << 20, 1 << 30
LINK = 8192
"""Bytes that a link takes and its peer has not."""
Ended = Callable[[list[tuple[int, bytes]], dict[int, str], str], None]
"""Is told values by rank, who is not in them and why, and an error."""


class Files(Budget):
    """Of a plane, whose files are in memory."""

    def take_file(self, size: int, swarm_id: str) -> int:
        self.take_disk(swarm_id, size)
        fd = os.memfd_create("file", os.MFD_CLOEXEC)
        os.ftruncate(fd, size)
        return fd


class Keeps:
    """What calls keep that are over, of one desk."""

    def __init__(self, desk: Desk) -> None:
        self._calls = desk.calls

    def small(self) -> dict[str, int]:
        return {SWARM: self._calls.small()}

    def spill(self, whose: Whose) -> bool:
        return whose(SWARM) and self._calls.spill_oldest()

    def given(self) -> dict[str, Footprint]:
        return {SWARM: self._calls.given}

    def let_go(self, whose: Whose, size: Size) -> bool:
        return whose(SWARM) and self._calls.let_go_oldest(size)


class Asked:
    """A call; `ended` is called once."""

    connection = 0
    refusal = ""
    nodes = 0

    def __init__(self, at: Instance, body: CallCollective, value: bytes, ended: Ended) -> None:
        self.at, self.body, self.ended = at, body, ended
        self.value: Value | None = value or None

    def reply(self, told: dict[str, Any], fds: list[int]) -> None:
        found, at = [], 0
        for rank, size, _, place, offset in told["parts"]:
            if place < 0:
                found.append((rank, told["data"][at : at + size]))
                at += size
            else:
                found.append((rank, os.pread(fds[place], size, offset)))
        self.ended(found, told.get("lost", {}), "")

    def fail(self, kind: str, sentence: str) -> None:
        self.ended([], {}, f"{kind}: {sentence}")


@dataclass
class Sending:
    memory: memoryview
    done: Callable[[str | None], None]
    ready: int = 0


@dataclass
class Expecting:
    memory: memoryview
    progress: Callable[[int], None]
    done: Callable[[str | None], None]
    got: int = 0


class Mover:
    """Bulk of one plane with the one on another node, whichever runs there."""

    def __init__(self, plane: Plane, peer: str) -> None:
        self._plane, self._peer = plane, peer
        self._clock = plane.time

    def expect(
        self,
        transfer: bytes,
        memory: memoryview,
        progress: Callable[[int], None],
        done: Callable[[str | None], None],
        adopted: Callable[[int], None] | None,
    ) -> None:
        assert (self._peer, transfer) not in self._plane.expecting
        self._plane.expecting[self._peer, transfer] = Expecting(memory, progress, done)

    def send(
        self,
        transfer: bytes,
        memory: memoryview,
        done: Callable[[str | None], None],
        memfd: int,
        at: int,
    ) -> None:
        assert (self._peer, transfer) not in self._plane.sending
        self._plane.sending[self._peer, transfer] = Sending(memory, done)

    def ready(self, transfer: bytes, upto: int) -> None:
        sending = self._plane.sending.get((self._peer, transfer))
        if sending is not None:  # else it has ended, which is yet to be told
            sending.ready = upto
            self._clock.soon(0.05, partial(self._move, transfer))

    def _move(self, transfer: bytes) -> None:
        sender, peer = self._plane, self._plane.net[self._peer]
        sending = sender.sending.get((self._peer, transfer))
        if sending is None or not sender.is_alive:
            return
        if not peer.is_alive or not sender.is_up(SWARM, self._peer):
            self._clock.after(0.2, partial(self._move, transfer))
            return
        expecting = peer.expecting.get((sender.name, transfer))
        if expecting is None:
            del sender.sending[self._peer, transfer]
            self._then(sender, sending.done, None)
            return
        start, most = expecting.got, sending.ready - expecting.got
        if most:
            stop = start + self._clock.random.randint(1, most)
            expecting.memory[start:stop] = sending.memory[start:stop]
            expecting.got = stop
            self._clock.seen["moved"] += 1
        if expecting.got == len(expecting.memory):
            del sender.sending[self._peer, transfer]
            del peer.expecting[sender.name, transfer]
            self._then(sender, sending.done, "")
            peer.does(partial(expecting.done, ""))
        elif most:
            self._clock.soon(0.05, partial(self._move, transfer))
            peer.does(partial(expecting.progress, expecting.got))

    def cancel(self, transfer: bytes) -> None:
        sending = self._plane.sending.pop((self._peer, transfer), None)
        if sending is not None:
            self._then(self._plane, sending.done, None)
        peer = self._plane.net[self._peer]
        expecting = peer.expecting.pop((self._plane.name, transfer), None)
        if expecting is not None:
            self._then(peer, expecting.done, None)

    def refuse(self, transfer: bytes) -> None:
        expecting = self._plane.expecting.pop((self._peer, transfer), None)
        if expecting is not None:
            self._then(self._plane, expecting.done, None)
        peer = self._plane.net[self._peer]
        sending = peer.sending.pop((self._plane.name, transfer), None)
        if sending is not None:
            self._then(peer, sending.done, None)

    def _then(self, plane: Plane, done: Callable[[str | None], None], why: str | None) -> None:
        self._clock.soon(0.02, lambda: plane.does(partial(done, why)))


class Disk:
    """Of a node: it outlives its planes."""

    def __init__(self) -> None:
        self.kept: list[Kept] = []
        self.files: dict[bytes, bytes] = {}

    def keep(self, at: Instance, items: tuple[KeptCall, ...]) -> None:
        self.kept.append(Kept(at.iteration, at.alias, at.index, at.attempt, items))


class Plane(Linked):
    """Implements `calls.Outside`. A second one of a node is the same one restarted, with its disk.
    `shares`: the nodes have another swarm in common, for which they stay linked while one of them
    is lost to this one."""

    def __init__(
        self,
        time: Clock,
        name: str,
        net: dict[str, Plane],
        disk: Disk | None = None,
        *,
        shares: bool = True,
    ) -> None:
        super().__init__(time, name, net)
        self.disk = disk or Disk()
        self.budget = Files(MEMORY, DISK, Path())
        self.pool = Pool(self.budget, lambda: time.now)
        self.sending: dict[tuple[str, bytes], Sending] = {}
        self.expecting: dict[tuple[str, bytes], Expecting] = {}
        """By the other node and the transfer."""
        self.unsettled: list[Instance] = []
        """Attempts that wait until the manager has applied what they wrote, as often as they do."""
        self._shares = shares
        self._unheard: set[str] = set()
        random = time.random
        token, first = random.randbytes(8), random.randrange(1 << 40)
        room = MessageRoom(self.pool)
        self.desk = Desk(SWARM, EPOCH, name, token, first, self.known, self.pool, room, self)
        self.pool.keeps = Keeps(self.desk)
        self.desk.lasting.restore(self.disk.kept)

    # --- the daemon ---------------------------------------------------------------------------

    def introduced(self, names: Collection[str]) -> None:
        """Who is there; whoever was before and is not is lost."""
        before = set(self.known.nodes(SWARM))
        began = self.known.epoch(SWARM) is None
        peers = tuple(Peer(name, name, f"key-{name}") for name in names)
        lost = sorted(before - set(names))
        departed = tuple(Departed(one, one, f"key-{one}", Departure.LOST) for one in lost)
        self.known.apply(DirectoryChanged(SWARM, EPOCH, began, peers, departed))
        for name in lost:
            self.desk.peer_lost(name, "its node was lost")
            for connection in () if self._shares else list(self._connections.get(name, ())):
                connection.cut()
        self.desk.look_again()
        for name in sorted(set(names) - before):
            if self._connections.get(name):
                self.desk.peers.link_up(name)
            self._unheard.discard(name)
        for name in sorted(self._unheard & set(names)):
            self._unheard.remove(name)
            self.desk.peers.link_up(name)
        self._set_timer()

    def told(self, roster: Roster) -> None:
        self.desk.roster_changed(roster)
        self._set_timer()

    def ask(self, asked: Asked) -> None:
        self.desk.ask(asked, self.time.now)
        self._set_timer()

    def end(self, at: Instance, asked: Asked | None = None, *, counts: bool = False) -> None:
        """Of an attempt, with the call that it waits in."""
        if counts and self.desk.roster is not None:
            ending = self.desk.lasting.ends(at, self.desk.roster, lambda: None)
            self.disk.keep(at, ending.items)
            ending.kept()
        if asked is not None:
            self.desk.abandon(asked)
        self.desk.settling.forget(at)
        self.pool.forget(at)

    def crash(self) -> None:
        super().crash()
        self.sending.clear()
        self.expecting.clear()
        for call in self.desk.calls.all:  # its files go with its process
            call.meeting._memory.end()
            call.meeting.giving.end()
        self.pool.close()

    def _set_timer(self) -> None:
        due = self.desk.due
        if due is not None and due < 1e8:
            self.time.after(max(0.0, due - self.time.now), self._tick)

    def look_again(self) -> None:
        """There may be room for what there was none for."""
        self._set_timer()

    def _tick(self) -> None:
        self.does(lambda: self.desk.tick(self.time.now))

    # --- links --------------------------------------------------------------------------------

    def dial(self, other: str) -> None:
        if self._shares or (self.knows(other) and self.net[other].knows(self.name)):
            super().dial(other)

    def latency(self) -> float:
        """What comes over a slow one may be overtaken over the one that takes its place."""
        return self.time.random.choice((LATENCY, LATENCY, 20 * LATENCY))

    def flap(self) -> None:
        """Each link goes down, and another is up before all have noticed."""
        for other, mine in list(self._connections.items()):
            for connection in list(mine):
                self.time.seen["flaps"] += 1
                connection.cut()
            if mine and self.net[other].is_alive:
                Connection(self, self.net[other], self.latency())

    def link_up(self, other: str, *, anew: bool) -> None:
        self.desk.peers.link_up(other)

    def link_down(self, other: str) -> None:
        """Desks wait for the next."""

    def received(self, connection: Connection, epoch: str | None, message: Any) -> None:
        other = connection.other(self).name
        self.time.note(self.name, f"<- {other} {message}")
        if not self.knows(other):
            self._unheard.add(other)
            return
        try:
            self.desk.peers.handle(other, message)
        except RemoteProtocolError as error:
            if "introduced itself" not in str(error):
                raise
            connection.cut()
        self._set_timer()

    # --- calls.Outside ------------------------------------------------------------------------

    def tell(self, swarm_id: str, peer: str, message: messages.Message) -> None:
        if (mine := self._connections.get(peer)) and self.knows(peer):
            self.send(peer, message)
            self.time.seen["parts"] += getattr(message, "left", 0) > 0
            self.time.seen["asked for again"] += getattr(message, "again", False)
            assert mine[0].on_way(self) <= LINK, f"{self.name} says more than a link takes"

    def has_room(self, swarm_id: str, peer: str) -> bool:
        if not (mine := self._connections.get(peer)):
            return False
        if mine[0].on_way(self) < LINK // 2 and self.time.random.random() > 0.05:
            return True
        self.time.seen["full links"] += 1
        return False

    def cut(self, swarm_id: str, peer: str, why: str) -> None:
        raise AssertionError(f"{self.name} cuts {peer}: {why}")

    def settle(self, at: Instance) -> None:
        self.unsettled.append(at)

    def move(self, swarm_id: str, peer: str) -> calls.Mover:
        return Mover(self, peer) if self.knows(peer) else Nowhere(self._post)

    def _post(self, call: Callable[[], None]) -> None:
        self.time.soon(0.02, lambda: self.does(call))

    def does(self, call: Callable[[], object]) -> None:
        """On its thread."""
        if self.is_alive:
            call()
            self._set_timer()

    def work(self, job: Callable[[], None], then: Callable[[Exception | None], None]) -> None:
        def done() -> None:
            job()
            then(None)

        self.time.soon(0.05, lambda: self.does(done))

    def on_disk(self, job: Callable[[], None], then: Callable[[Exception | None], None]) -> None:
        def done() -> None:
            job()
            then(None)

        self.time.seen["disk"] += 1
        self.time.soon(0.5, lambda: self.does(done))

    def keep(self, at: Instance, items: tuple[KeptCall, ...], then: Callable[[], object]) -> None:
        self.time.seen["kept alone"] += len(items)

        def kept(_: Exception | None) -> None:
            then()

        self.on_disk(partial(self.disk.keep, at, items), kept)

    def release(self, value: Parcel) -> None:
        raise AssertionError("values here are bytes")

    def file(self, swarm_id: str, size: int, parts: Parts) -> Parcel:
        parcel = Parcel(self.time.random.randbytes(16), size)
        self.disk.files[parcel.id] = data = b"".join(map(bytes, parts()))
        assert len(data) == size
        return parcel

    def read(self, value: bytes | Parcel, into: memoryview, at: int) -> None:
        data = self.disk.files[value.id] if isinstance(value, Parcel) else value
        into[:] = data[at : at + len(into)]

    def own(self, parcel: bytes) -> int | None:
        raise AssertionError("values here are bytes")

    def memfd(self, parcel: bytes) -> int:
        raise AssertionError("values here are bytes")

    def clock(self) -> float:
        return self.time.now
