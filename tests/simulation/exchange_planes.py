"""The planes of nodes whose tasks exchange, with links, spools and values that can be lost."""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any, Protocol

from manta.node.peers.directory import DirectoryChanged
from manta.node.peers.known import KnownPeers
from manta.node.plane.copies import ValueGone
from manta.node.plane.envelope import NoParcel, NotNow, WantParcel
from manta.node.plane.fetches import LOOK, Fetch, Fetches
from manta.node.plane.requests import PlaneRequest
from manta.node.plane.spool import Timeline
from manta.node.plane.spool_records import parcels
from manta.node.plane.swarm import SwarmExchange
from manta.protocol.base import Instance
from manta.protocol.peers import Peer
from manta.protocol.roster import Roster
from manta.transports.exchange import messages
from manta.transports.exchange.kept import Kept
from manta.transports.exchange.letters import Remote, Value
from manta.transports.exchange.messages import Parcel

SWARM = "s"
STEPS = 400_000


Said = tuple[str | None, Any]
"""The sender's timeline, and a message of it."""


class End(Protocol):
    """Of a connection."""

    name: str
    is_alive: bool
    begun: list[Connection]

    def connected(self, connection: Connection) -> None: ...

    def disconnected(self, connection: Connection) -> None: ...

    def received(self, connection: Connection, epoch: str | None, message: Any) -> None: ...


class Clock:
    """Virtual time, in which one thing happens after another, and chance."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.trace: list[str] = []
        self.seen: Counter[str] = Counter()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0

    def after(self, delay: float, call: Callable[[], object]) -> None:
        self._count += 1
        heapq.heappush(self._due, (self.now + delay, self._count, call))

    def soon(self, most: float, call: Callable[[], object]) -> None:
        self.after(self.random.uniform(0, most), call)

    def run(self, done: Callable[[], bool]) -> None:
        steps = 0
        while not done():
            assert self._due, "nothing happens any more"
            self.now, _, call = heapq.heappop(self._due)
            call()
            steps += 1
            assert steps < STEPS, "it does not end"

    def note(self, who: str, what: object) -> None:
        self.trace.append(f"{self.now:9.4f} {who:5} {what}")


class Connection:
    """Between two planes. Each end learns at its own time that it is up, and that it is down."""

    def __init__(self, clock: Clock, one: End, other: End) -> None:
        self.clock = clock
        self.ends = (one, other)
        self.is_cut = False
        self._ways: dict[End, deque[Said]] = {one: deque(), other: deque()}
        """By who receives."""
        self._on_way = Counter[End]()
        """By who receives: bytes."""
        self._have_heard: list[End] = []
        """That it is up."""
        for end in self.ends:
            end.begun.append(self)
            clock.soon(0.05, partial(self._up, end))

    def other(self, end: End) -> End:
        return self.ends[end is self.ends[0]]

    def _up(self, end: End) -> None:
        if not self.is_cut and end.is_alive and end not in self._have_heard:
            self._have_heard.append(end)
            end.connected(self)

    def cut(self) -> None:
        """What is on its way is lost, but for some of the first."""
        if self.is_cut:
            return
        self.is_cut = True
        for end, way in self._ways.items():
            while len(way) > self.clock.random.randrange(len(way) + 1):
                self._on_way[end] -= _size(way.pop()[1])
            self.clock.after(self.clock.random.uniform(0.1, 0.5), partial(self._down, end))

    def _down(self, end: End) -> None:
        if end.is_alive:
            end.disconnected(self)

    def send(self, source: End, epoch: str | None, message: Any) -> None:
        if self.is_cut:
            return
        to = self.other(source)
        self._ways[to].append((epoch, message))
        self._on_way[to] += _size(message)
        self.clock.soon(0.02, lambda: self._arrive(to))

    def on_way(self, source: End) -> int:
        """Bytes that it has said, and that have not arrived, about."""
        return self._on_way[self.other(source)]

    def _arrive(self, to: End) -> None:
        self._up(to)
        if self._ways[to] and to.is_alive and to in self._have_heard:
            epoch, message = self._ways[to].popleft()
            self._on_way[to] -= _size(message)
            to.received(self, epoch, message)


def _size(message: Any) -> int:
    """Of what it brings, with what it costs."""
    return 64 + len(getattr(message, "part", b""))


class Disk:
    """What outlives a node."""

    def __init__(self) -> None:
        self.kept: dict[Timeline, list[Kept]] = {}
        self.values: set[bytes] = set()

    def delete_unnamed(self) -> None:
        self.values = {one.id for kept in self.kept.values() for one in parcels(kept)} & self.values

    def drop(self, timeline: Timeline) -> set[bytes]:
        gone = {one.id for one in parcels(self.kept.pop(timeline))}
        self.values -= gone
        return gone


class Asked:
    """A request; `ended` is called once with its answer or its error."""

    def __init__(
        self,
        plane: Plane,
        at: Instance,
        body: PlaneRequest,
        value: Value | None,
        ended: Callable[[Any, str], None],
    ) -> None:
        self.plane, self.at, self.body, self.value, self.ended = plane, at, body, value, ended
        self.until = plane.clock.now + getattr(body, "timeout", math.inf)

    def tell(self, plain: str | None) -> None:
        raise AssertionError("nobody asks for a node's id here")

    def answer(self, value: Value | None) -> None:
        if isinstance(value, Remote):
            self.plane.fetch(self, value)
        elif isinstance(value, Parcel):
            assert value.id in self.plane.held, "what it is answered with is gone"
            self.ended(value.id, "")
        else:
            self.ended(value, "")

    def fail(self, kind: str, sentence: str) -> None:
        if self.value is not None:
            self.plane.release(self.value)
        self.ended(None, f"{kind}: {sentence}")


class Plane:
    """Implements `swarm.Outside` and `fetches.Shell`. A second one of a node is the same one
    restarted."""

    def __init__(self, clock: Clock, name: str, disk: Disk, net: dict[str, Plane]) -> None:
        self.clock = clock
        self.name = name
        self.is_alive = True
        self.disk = disk
        disk.delete_unnamed()
        self.held = set(disk.values)
        """Values of tasks here, in memory or on disk."""
        self._net = net
        net[name] = self
        self._known = KnownPeers()
        self.begun: list[Connection] = []
        self._connections: dict[str, list[Connection]] = {}
        """Over the first of each is sent."""
        self._jobs: deque[tuple[Callable[[], None], Callable[[], object]]] = deque()
        self._fetches = Fetches(self)
        self._fetching: dict[Remote, list[Asked]] = {}
        """Who waits for each."""
        self._expected: set[bytes] = set()
        """Transfers that are to come."""
        self.swarm = SwarmExchange(SWARM, name, self._known, self)
        self.lost: Callable[[Instance], None] = lambda at: None
        """Told of each attempt whose timeline is over."""

    # --- the daemon ---------------------------------------------------------------------------

    def introduced(self, epoch: str, names: Sequence[str]) -> None:
        former = self._known.epoch(SWARM)
        peers = tuple(Peer(name, name, f"key-{name}") for name in names)
        self._known.apply(DirectoryChanged(SWARM, epoch, former != epoch, peers))
        self._begins(epoch)
        self._fetches.directory_changed(SWARM, self.clock.now)

    @property
    def epoch(self) -> str | None:
        return self._known.epoch(SWARM)

    def told(self, roster: Roster) -> None:
        self._begins(roster.epoch)
        self.clock.note(self.name, f"iteration {roster.iteration}")
        self.swarm.roster_changed(roster, Timeline(SWARM, roster.epoch), self.clock.now)

    def _begins(self, epoch: str) -> None:
        timeline = Timeline(SWARM, epoch)
        if self.swarm.timeline not in (None, timeline):
            former, self.swarm = self.swarm, SwarmExchange(SWARM, self.name, self._known, self)
            for at in self.swarm.take_over(former, self.clock.now):
                self.lost(at)
            former.close()
        for other in [one for one in self.disk.kept if one != timeline]:
            self.held -= self.disk.drop(other)

    def crash(self) -> None:
        """What was being written may be there or not, and nobody was told."""
        self.is_alive = False
        for _ in range(self.clock.random.randrange(len(self._jobs) + 1)):
            self._jobs.popleft()[0]()
        for connection in self.begun:
            connection.cut()

    # --- links --------------------------------------------------------------------------------

    def dial(self, other: str) -> None:
        """Some have two connections for a while."""
        peer = self._net[other]
        mine = self._connections.get(other, ())
        if peer.is_alive and (not mine or (len(mine) == 1 and self.clock.random.random() < 0.05)):
            Connection(self.clock, self, peer)

    def connected(self, connection: Connection) -> None:
        other = connection.other(self).name
        mine = self._connections.setdefault(other, [])
        mine.append(connection)
        if len(mine) == 1 and self._knows(other):
            self.swarm.link_up(other, wants=False)
            self._fetches.link_up(f"key-{other}", self.clock.now)

    def disconnected(self, connection: Connection) -> None:
        other = connection.other(self).name
        mine = self._connections.get(other, [])
        if connection not in mine:
            return
        was_first = mine[0] is connection
        mine.remove(connection)
        if was_first and self._knows(other):
            self.swarm.link_down(other)
            if mine:
                self.swarm.link_up(other, wants=True)

    def received(self, connection: Connection, epoch: str | None, message: Any) -> None:
        other = connection.other(self).name
        self.clock.note(self.name, f"<- {other} {message}")
        if not self._knows(other) or epoch != self._known.epoch(SWARM):
            return
        match message:
            case WantParcel():
                self._serve(other, message)
            case NoParcel(transfer):
                self._fetches.gone(f"key-{other}", transfer)
            case NotNow(transfer, why):
                self._fetches.refused(f"key-{other}", transfer, why)
            case _:
                self.swarm.handle(other, message)

    def cut(self) -> None:
        for connections in list(self._connections.values()):
            for connection in connections:
                if self.clock.random.random() < 0.5:
                    self.clock.seen["cuts"] += 1
                    connection.cut()

    def _knows(self, other: str) -> bool:
        return self._known.node(SWARM, other) is not None

    # --- values -------------------------------------------------------------------------------

    def fetch(self, asked: Asked, remote: Remote) -> None:
        """Asks its holder until it comes; a plane that restarts has other values."""
        waiting = self._fetching.setdefault(remote, [])
        waiting.append(asked)
        if len(waiting) == 1:
            was_idle = self._fetches.due is None
            self._fetches.begin(Fetch(SWARM, remote, is_asked=True), self.clock.now)
            if was_idle:
                self.clock.after(LOOK, self._look)

    def _look(self) -> None:
        if self.is_alive and (due := self._fetches.due) is not None:
            self._fetches.tick(self.clock.now)
            self.clock.after(max(0.01, due + LOOK - self.clock.now), self._look)

    def _serve(self, other: str, want: WantParcel) -> None:
        """Transfers may break off, and be refused for now."""
        chance = self.clock.random.random()
        if want.parcel not in self.held:
            self._send(other, NoParcel(want.transfer))
        elif chance < 0.2:
            self.clock.seen["values refused"] += 1
            self._send(other, NotNow(want.transfer, "not now"))
        elif chance < 0.9:
            to, error = self._net[other], None if chance < 0.7 else OSError("it broke off")
            self.clock.seen["transfers broken"] += error is not None
            self.clock.soon(0.3, partial(to.transfer_ended, want.transfer, error))

    def transfer_ended(self, transfer: bytes, error: Exception | None) -> None:
        """It may have been sent twice, since it was asked for twice."""
        if self.is_alive and transfer in self._expected:
            self._expected.discard(transfer)
            self._fetches.transfer_ended(transfer, error, self.clock.now)

    # --- fetches.Shell ------------------------------------------------------------------------

    def key(self, swarm_id: str, peer: str) -> str | None:
        node = self._known.node(swarm_id, peer)
        return None if node is None else node.key

    def new_id(self) -> bytes:
        return self.clock.random.randbytes(16)

    def expect(self, fetch: Fetch) -> None:
        self._expected.add(fetch.transfer)

    def request(self, fetch: Fetch) -> None:
        self._send(fetch.remote.peer, WantParcel(fetch.remote.parcel.id, fetch.transfer))

    def refuse(self, fetch: Fetch, why: str) -> None:
        self.clock.soon(0.1, partial(self.transfer_ended, fetch.transfer, OSError(why)))

    def done(self, fetch: Fetch, error: Exception | None) -> None:
        self.clock.after(0, partial(self._came, fetch.remote, error))

    def _came(self, remote: Remote, error: Exception | None) -> None:
        if not self.is_alive:
            return
        for asked in self._fetching.pop(remote):
            if error is None:
                asked.ended(remote.parcel.id, "")
            else:
                self.clock.seen["values gone"] += isinstance(error, ValueGone)
                self.swarm.lost(asked, remote, self.clock.now)

    # --- swarm.Outside ------------------------------------------------------------------------

    def tell(self, swarm_id: str, peer: str, message: messages.Message) -> None:
        self._send(peer, message)

    def _send(self, peer: str, message: Any) -> None:
        if mine := self._connections.get(peer):
            mine[0].send(self, self._known.epoch(SWARM), message)

    def release(self, value: Value) -> None:
        if isinstance(value, Parcel):
            self.held.discard(value.id)
            self.disk.values.discard(value.id)
        elif isinstance(value, Remote):
            self._fetches.give_up(value, self.clock.now)

    def arrived(self, swarm_id: str, value: Value) -> None:
        pass

    def is_up(self, swarm_id: str, peer: str) -> bool:
        return bool(self._connections.get(peer))

    def soon(self, call: Callable[[], None]) -> None:
        self.clock.after(0, lambda: call() if self.is_alive else None)

    def restored(self, timeline: Timeline) -> list[Kept]:
        """What names a value that is gone comes without it, as of parcels.Parcels."""
        found = []
        for kept in self.disk.kept.get(timeline, []):
            items = tuple(
                item
                for item in kept.items
                if not isinstance(value := getattr(item, "value", b""), Parcel)
                or value.id in self.held
            )
            found.append(Kept(kept.era, kept.task, kept.rank, kept.number, items))
        return found

    def keep(self, timeline: Timeline, kept: Kept, then: Callable[[], object]) -> None:
        def write() -> None:
            self.disk.values.update(one.id for one in parcels((kept,)) if one.id in self.held)
            self.disk.kept.setdefault(timeline, []).append(kept)

        self._write(write, then)

    def keep_only(
        self, timeline: Timeline, still: Sequence[Kept], then: Callable[[], object]
    ) -> None:
        def write() -> None:
            self.disk.kept.pop(timeline, None)
            if still:
                self.disk.kept[timeline] = list(still)

        self._write(write, then)

    def _write(self, write: Callable[[], None], then: Callable[[], object]) -> None:
        self._jobs.append((write, then))
        self.clock.soon(0.05, self._written)

    def _written(self) -> None:
        if self.is_alive and self._jobs:
            write, then = self._jobs.popleft()
            write()
            then()
