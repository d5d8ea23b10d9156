"""Machines of membership in virtual time, with loss, delay, partitions, freezes, deaths and liars.

What happens at one time happens in the order in which it was begun: a seed replays.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from manta.transports.membership.actions import (
    Action,
    Died,
    Event,
    Leave,
    LinkClosed,
    LinkUp,
    Received,
    Send,
    Tick,
)
from manta.transports.membership.members import State
from manta.transports.membership.membership import Membership
from manta.transports.membership.messages import (
    ROOM,
    Message,
    Records,
    announcement,
    decode,
    encode,
)
from manta.transports.membership.rumours import Rumours

TICK = Tick()
INBOX = 1_000
"""Messages that lie before a frozen peer."""
ANSWERS = 1.0
"""Seconds after which a peer that is thawed, or reached again, has answered others."""


def key_of(number: int) -> str:
    return f"{number:040d}"


class Peer:
    """A process with a machine. `said` is what it told its user, and when."""

    def __init__(self, net: Net, number: int, session: int, *, joins: bool) -> None:
        self.net, self.number, self.key = net, number, key_of(number)
        me = announcement(self.key, session, f"p{number}", (f"tcp://10.0.0.{number}:7000",))
        random = Random(net.random.getrandbits(64))
        self.machine = Membership(me, random, joins=joins, now=net.now)
        self.said: list[tuple[float, Action]] = []
        self.sent = 0
        """Bytes."""
        self.is_up = True
        self.is_frozen = False
        self.side = 0
        """Of a partition: those on one side reach each other."""
        self.since = net.now
        """When it was able to answer again, last."""
        self.inbox: list[Event] = []
        self.wakes: float | None = None
        self.rise()

    def __repr__(self) -> str:
        return f"p{self.number}"

    def take(self, event: Event) -> None:
        if not self.is_up:
            return
        if self.is_frozen:
            if len(self.inbox) < INBOX and event is not TICK:
                self.inbox.append(event)
            return
        net = self.net
        for action in self.machine.handle(event, net.now):
            if type(action) is Send:
                net.carry(self, action.peer, action.message)
            else:
                self.said.append((net.now, action))
                net.heard(self, action)
        self.rise()

    def rise(self) -> None:
        """Has the machine called when it is due."""
        due = self.machine.due
        if due is not None and due != self.wakes:
            self.wakes = due
            self.net.at(due, self, TICK)

    def freeze(self) -> None:
        self.is_frozen = True

    def thaw(self) -> None:
        if not self.is_up:
            return
        self.is_frozen, self.since = False, self.net.now
        inbox, self.inbox = self.inbox, []
        for event in inbox:
            self.take(event)
        self.take(TICK)

    @property
    def view(self) -> set[int]:
        return {int(peer.key) for peer in self.machine.view.peers}

    def of(self, kind: type) -> list[Any]:
        return [action for _, action in self.said if isinstance(action, kind)]


class Net:
    """`loss` is of each message; `delay` the least and the most of its seconds, short ones being
    more likely. With `is_wire` messages go through bytes."""

    def __init__(
        self,
        seed: int,
        *,
        loss: float = 0.0,
        delay: tuple[float, float] = (0.0005, 0.02),
        is_wire: bool = True,
    ) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.loss, self.delay, self.is_wire = loss, delay, is_wire
        self.peers: dict[str, Peer] = {}
        self.false_deaths: list[str] = []
        """Of peers that were up and answered."""
        self.deaths: list[tuple[float, Peer, str]] = []
        """When who gave whom up."""
        self.sent = 0
        """Bytes of all."""
        self.largest = 0
        """Bytes of a message that is no page."""
        self._due: list[tuple[float, int, Any, Any]] = []
        self._count = 0

    # --- peers ------------------------------------------------------------------------------

    def start(self, number: int, via: Iterable[Peer] = (), *, joins: bool = False) -> Peer:
        """Begins a peer, which joins through those, or is the first."""
        via = list(via)
        peer = Peer(self, number, self.random.getrandbits(32), joins=joins or bool(via))
        self.peers[peer.key] = peer
        for other in via:
            self.at(self.now + 0.01, peer, LinkUp(other.key))
            self.at(self.now + 0.01, other, LinkUp(peer.key))
        return peer

    def mesh(self, size: int) -> list[Peer]:
        """Peers that join one after another."""
        peers = [self.start(0)]
        for number in range(1, size):
            peers.append(self.start(number, [self.random.choice(peers)]))
            self.run(0.05)
        return peers

    def grown(self, size: int) -> list[Peer]:
        """Peers that know each other from the beginning: what joining costs is left out."""
        peers = [self.start(number) for number in range(size)]
        all_of_them = [peer.machine.me for peer in peers]
        for rank, peer in enumerate(peers):
            peer.take(TICK)
            context = peer.machine._context
            for other in all_of_them:
                if other.key != peer.key:
                    context.members.add(other)
                    context.order.add(other.key)
            context.members.announce(all_of_them[rank])
            context.resize()
            context.rumours = Rumours()
            peer.said.clear()
        return peers

    def kill(self, peer: Peer, *, closed: bool = True) -> None:
        """With `closed` the others' systems report that its links ended."""
        peer.is_up = False
        del self.peers[peer.key]
        if closed:
            for other in list(self.peers.values()):
                self.at(self.now + self.delay[1], other, LinkClosed(peer.key))

    def leave(self, peer: Peer) -> None:
        peer.take(Leave())
        peer.is_up = False
        del self.peers[peer.key]

    def part(self, *sides: Iterable[Peer]) -> None:
        """Those of one side reach each other only."""
        for side, peers in enumerate(sides):
            for peer in peers:
                peer.side = side

    def heal(self) -> None:
        for peer in self.peers.values():
            peer.side, peer.since = 0, self.now

    # --- messages and time ------------------------------------------------------------------

    def at(self, when: float, peer: Peer, event: Event) -> None:
        self._count += 1
        heapq.heappush(self._due, (when, self._count, peer, event))

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        self._count += 1
        heapq.heappush(self._due, (self.now + seconds, self._count, None, call))

    def carry(self, source: Peer, to: str, message: Message) -> None:
        data = encode(message)
        source.sent += len(data)
        self.sent += len(data)
        if not isinstance(message, Records):
            self.largest = max(self.largest, len(data))
            assert len(data) <= ROOM, message
        if self.random.random() < self.loss:
            return
        target = self.peers.get(to)
        if target is None or target.side != source.side:
            return
        if self.is_wire:
            message = decode(data)
        low, high = self.delay
        delay = low + (high - low) * self.random.random() ** 4
        self.at(self.now + delay, target, Received(source.key, message))

    def heard(self, peer: Peer, action: Action) -> None:
        if isinstance(action, Died):
            self.deaths.append((self.now, peer, action.peer.key))
            other = self.peers.get(action.peer.key)
            if other is None or other.is_frozen or other.side != peer.side:
                return
            is_same = other.machine.me.session == action.peer.session
            if is_same and self.now > other.since + ANSWERS:
                self.false_deaths.append(f"{self.now:.2f} s: {peer} gives {other} up")

    def run(self, seconds: float) -> None:
        until, due = self.now + seconds, self._due
        while due and due[0][0] <= until:
            self.now, _, peer, event = heapq.heappop(due)
            if peer is None:
                event()
            elif event is not TICK:
                peer.take(event)
            elif peer.wakes == self.now:
                peer.wakes = None
                peer.take(TICK)
        self.now = until

    def until(self, done: Callable[[], bool], most: float) -> float:
        """Runs until that is so, and returns how long it took."""
        begun = self.now
        while not done():
            assert self.now < begun + most, f"not within {most:g} s"
            self.run(0.01)
        return self.now - begun

    def agree(self, peers: Iterable[Peer]) -> bool:
        """Whether all of them know these peers, as they announced themselves last, and no others,
        and suspect none."""
        peers = list(peers)
        expected = {peer.key: peer.machine.me for peer in peers}
        return all(
            {one.key: one for one in peer.machine.view.peers} == expected
            and not any(state is State.SUSPECT for _, state in peer.machine.peers())
            for peer in peers
        )
