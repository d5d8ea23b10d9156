"""Planes that end in good order as soon as their members have sent what they send."""

from __future__ import annotations

from functools import partial
from typing import Any

from manta.node.peers.directory import DirectoryChanged
from manta.node.plane.requests import HearBroadcast, ReceiveLetter, SayToAll, SendLetter
from manta.protocol.base import Instance
from manta.protocol.peers import Departed, Departure
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.protocol.states import AttemptState
from tests.simulation.exchange_planes import Asked, Disk, Plane
from tests.simulation.network import SWARM, Clock

STAYS, *LEAVE = NAMES = ("n0", "n1", "n2", "n3")
LETTERS = 3


class Peers:
    """As those of a mesh: each is a task of its own, for good."""

    def __init__(self, seed: int) -> None:
        self.clock = Clock(seed)
        self.net: dict[str, Plane] = {}
        self.answers: dict[Any, tuple[Any, str]] = {}
        for name in NAMES:
            Plane(self.clock, name, Disk(), self.net)
        for name, plane in self.net.items():
            plane.introduced("e", NAMES)
            plane.told(roster(()))
            plane.swarm.begin(speaker(name))
            self.dial(plane)

    def dial(self, plane: Plane) -> None:
        for other in self.net:
            if plane.name < other and plane.is_alive:
                plane.dial(other)
        plane.cut_links() if self.clock.random.random() < 0.3 else None
        self.clock.soon(0.5, partial(self.dial, plane))

    def ask(self, name: str, key: Any, body: Any, value: bytes | None = None) -> None:
        def ended(*answer: Any) -> None:
            self.answers[key] = answer

        plane = self.net[name]
        plane.swarm.ask(Asked(plane, speaker(name), body, value, ended), self.clock.now)

    def sends(self, name: str) -> None:
        for number in range(LETTERS):
            body = SendLetter(n=1, to=STAYS, tag="t", value=b"", timeout=100.0)
            value = f"{name} {number}".encode()
            self.ask(name, (name, number), body, value)
        self.ask(name, (name, "all"), SayToAll(n=1, tag=name, value=b""), name.encode())
        self.leave(name)

    def leave(self, name: str) -> None:
        there = {one for one, plane in self.net.items() if plane.is_alive}
        if self.net[name].swarm.lacking() & there:
            self.clock.soon(0.02, partial(self.leave, name))
            return
        self.net[name].crash()
        for plane in self.net.values():
            self.clock.soon(0.1, partial(self.lose, plane, name))

    def lose(self, plane: Plane, name: str) -> None:
        if not plane.is_alive:
            return
        gone = Departed(name, name, f"key-{name}", Departure.LOST)
        plane.known.apply(DirectoryChanged(SWARM, "e", False, (), (gone,)))
        plane.swarm.link_down(name)
        plane.told(roster(set(NAMES) - set(plane.known.nodes(SWARM))))


def speaker(name: str) -> Instance:
    return Instance(SWARM, name, 0, 0)


def roster(left: Any) -> Roster:
    states = {
        name: AttemptState.FINISHED if name in left else AttemptState.RUNNING for name in NAMES
    }
    tasks = {
        name: RosterTask(
            name, "RUNNING", 1, instances=(RosterInstance(0, name, name, 0, states[name]),)
        )
        for name in NAMES
    }
    return Roster("e", 0, tasks, {}, is_final=True)


def test_what_was_sent_is_there_though_its_sender_has_left(seed: int) -> None:
    peers = Peers(seed)
    for name in LEAVE:
        peers.clock.soon(0.5, partial(peers.sends, name))
    peers.clock.run(lambda: set(peers.net[STAYS].known.nodes(SWARM)) == {STAYS})
    for name in LEAVE:
        for number in range(LETTERS):
            body = ReceiveLetter(n=1, source=name, tag="t", number=number, timeout=1.0)
            peers.ask(STAYS, ("got", name, number), body)
        peers.ask(STAYS, ("got", name), HearBroadcast(n=1, tag=name, timeout=1.0))
    for name in LEAVE:
        for number in range(LETTERS):
            assert peers.answers["got", name, number] == (f"{name} {number}".encode(), "")
        assert peers.answers["got", name] == (name.encode(), "")
