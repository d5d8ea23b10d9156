"""What simulations of planes share: virtual time, connections between planes, nodes that crash."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial
from random import Random
from typing import Any, Generic, Self, TypeVar

from manta.node.peers.known import KnownPeers

SWARM = "s"
STEPS = 400_000
LATENCY = 0.02
"""Seconds that a message takes at most."""

Said = tuple[str | None, Any]
"""The sender's timeline, and a message of it."""


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

    def __init__(self, one: Linked, other: Linked, latency: float = LATENCY) -> None:
        self.clock = one.time
        self.ends = (one, other)
        self.is_cut = False
        self._latency = latency
        self._ways: dict[Linked, deque[Said]] = {one: deque(), other: deque()}
        """By who receives."""
        self._on_way = Counter[Linked]()
        """By who receives: bytes."""
        self._have_heard: list[Linked] = []
        """That it is up."""
        for end in self.ends:
            end.begun.append(self)
            self.clock.soon(0.05, partial(self._up, end))

    def other(self, end: Linked) -> Linked:
        return self.ends[end is self.ends[0]]

    def _up(self, end: Linked) -> None:
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

    def _down(self, end: Linked) -> None:
        if end.is_alive:
            end.disconnected(self)

    def send(self, source: Linked, epoch: str | None, message: Any) -> None:
        if self.is_cut:
            return
        to = self.other(source)
        self._ways[to].append((epoch, message))
        self._on_way[to] += _size(message)
        self.clock.soon(self._latency, lambda: self._arrive(to))

    def on_way(self, source: Linked) -> int:
        """Bytes that it has said, and that have not arrived, about."""
        return self._on_way[self.other(source)]

    def _arrive(self, to: Linked) -> None:
        self._up(to)
        if self._ways[to] and to.is_alive and to in self._have_heard:
            epoch, message = self._ways[to].popleft()
            self._on_way[to] -= _size(message)
            to.received(self, epoch, message)


def _size(message: Any) -> int:
    """Of what it brings, with what it costs."""
    return 64 + len(getattr(message, "part", b""))


class Linked(ABC):
    """A node's plane, with its connections. A second one of a node is the same one restarted."""

    net: dict[str, Self]
    """The plane that runs on each node, or ran there last."""

    def __init__(self, time: Clock, name: str, net: dict[str, Self]) -> None:
        self.time = time
        self.name = name
        self.is_alive = True
        self.known = KnownPeers()
        self.begun: list[Connection] = []
        self.net = net
        net[name] = self
        self._connections: dict[str, list[Connection]] = {}
        """Over the first of each is sent."""

    def crash(self) -> None:
        self.is_alive = False
        for connection in self.begun:
            connection.cut()

    # --- connections --------------------------------------------------------------------------

    def dial(self, other: str) -> None:
        """Some have two connections for a while."""
        peer = self.net[other]
        mine = self._connections.get(other, ())
        if peer.is_alive and (not mine or (len(mine) == 1 and self.time.random.random() < 0.05)):
            Connection(self, peer, self.latency())

    def latency(self) -> float:
        """Of a new connection."""
        return LATENCY

    def connected(self, connection: Connection) -> None:
        other = connection.other(self).name
        mine = self._connections.setdefault(other, [])
        mine.append(connection)
        if len(mine) == 1 and self.knows(other):
            self.link_up(other, anew=False)

    def disconnected(self, connection: Connection) -> None:
        other = connection.other(self).name
        mine = self._connections.get(other, [])
        if connection not in mine:
            return
        was_first = mine[0] is connection
        mine.remove(connection)
        if was_first and self.knows(other):
            self.link_down(other)
            if mine:
                self.link_up(other, anew=True)

    def cut_links(self) -> None:
        for connections in list(self._connections.values()):
            for connection in connections:
                if self.time.random.random() < 0.5:
                    self.time.seen["cuts"] += 1
                    connection.cut()

    def send(self, peer: str, message: Any) -> None:
        if mine := self._connections.get(peer):
            mine[0].send(self, self.known.epoch(SWARM), message)

    def is_up(self, swarm_id: str, peer: str) -> bool:
        return bool(self._connections.get(peer))

    def knows(self, other: str) -> bool:
        return self.known.node(SWARM, other) is not None

    @abstractmethod
    def link_up(self, other: str, *, anew: bool) -> None:
        """With `anew`, in the place of one that the other may not know to have gone down."""

    @abstractmethod
    def link_down(self, other: str) -> None: ...

    @abstractmethod
    def received(self, connection: Connection, epoch: str | None, message: Any) -> None: ...


P = TypeVar("P", bound=Linked)


class Host(ABC, Generic[P]):
    """A node: its daemon and its plane, of which each can crash."""

    def __init__(self, clock: Clock, name: str, others: Iterable[str], learns: float) -> None:
        """`learns`: how many seconds pass at most until the manager hears what is reported."""
        self.clock, self.name = clock, name
        self.is_up = True
        self._others = list(others)
        self._learns = learns
        self.plane = self.new_plane()
        self.plane_begun()
        self._dial()

    def _dial(self) -> None:
        self.clock.after(self.clock.random.uniform(0.2, 0.6), self._dial)
        self.dial_others()
        self.clock.soon(self._learns, self.report)

    def dial_others(self) -> None:
        if self.plane.is_alive:
            for other in self._others:
                if self.name < other and other in self.plane.net:
                    self.plane.dial(other)

    def begin_plane(self) -> None:
        if self.is_up and not self.plane.is_alive:
            self.plane = self.new_plane()
            self.plane_begun()

    def crash_plane(self) -> None:
        if not self.is_up or not self.plane.is_alive:
            return
        self.clock.note(self.name, "its plane crashes")
        self.clock.seen["plane crashes"] += 1
        self.plane.crash()
        self.plane_crashed()
        self.clock.soon(1.0, self.begin_plane)

    def crash(self) -> None:
        if not self.is_up:
            return
        self.clock.note(self.name, "crashes")
        self.clock.seen["node crashes"] += 1
        self.is_up = False
        if self.plane.is_alive:
            self.plane.crash()
        self.crashed()
        self.clock.soon(2.0, self._restart)

    def _restart(self) -> None:
        self.is_up = True
        self.restarted()
        self.begin_plane()

    @abstractmethod
    def new_plane(self) -> P: ...

    @abstractmethod
    def plane_begun(self) -> None:
        """It is told what the daemon knows."""

    @abstractmethod
    def plane_crashed(self) -> None:
        """The attempts that used it end."""

    @abstractmethod
    def crashed(self) -> None:
        """All of it is gone but what is on its disk."""

    def restarted(self) -> None:
        """It reads what is on its disk."""

    @abstractmethod
    def report(self) -> None:
        """Tells the manager what has become of attempts."""
