"""Who is told of a peer that comes to a door."""

from __future__ import annotations

from typing import Any

from manta.mesh.door import Card
from manta.mesh.peer.control import MEMBERSHIP, Control
from manta.mesh.peer.rosters import id_of
from manta.roster.topologies import Topology
from manta.transports.membership import actions as swim
from manta.transports.membership.messages import Alive, Gossip, announcement, decode


class Plane:
    """What a control says, by key."""

    def __init__(self) -> None:
        self.asides: list[tuple[str, bytes]] = []

    def aside(self, key: str, data: bytes) -> None:
        self.asides.append((key, data))

    def told(self, _: object) -> None: ...


class Io:
    def call_later(self, *_: object) -> Any: ...


def card(name: str) -> Card:
    return Card(name * 40, name, ())


def alive(name: str) -> Alive:
    return announcement(name * 40, 1, name, ())


def unused(*_: object) -> None: ...


def test_all_that_are_linked_are_told_once_of_who_came_to_the_door_here() -> None:
    control = Control(card("o"), Topology.of("full"), unused, unused, unused, lambda host: True)
    plane: Any = Plane()
    control.plane, control._io = plane, Io()
    control.known.begin(plane.told)
    for name in "ab":
        control.admit(card(name))
        control._do(swim.Joined(alive(name)))
        control._linked.add(id_of(name * 40))
    assert plane.asides == []  # who let these in tells others of them
    control.let_in(card("c"))
    for _ in range(2):
        control._do(swim.Joined(alive("c")))
    assert sorted(key[0] for key, _ in plane.asides) == ["a", "b"]
    for _, data in plane.asides:
        assert data[:1] == MEMBERSHIP
        assert decode(data[1:]) == Gossip((alive("c"),))
