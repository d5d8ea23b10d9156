"""What the desks of a plane share: calls that come before their swarm is known, rooms, keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from manta.node.peers.directory import DirectoryChanged
from manta.node.peers.known import KnownPeers
from manta.node.plane.collectives.desks import MOST_UNHEARD, Desks
from manta.node.plane.requests import CallCollective, MakeRoom
from manta.protocol.base import Instance
from manta.protocol.peers import Peer
from manta.transports.collectives.calls import Kind
from manta.transports.exchange.letters import Value

AT = Instance("s", "w", 0, 0, 0)
ME = Peer("n0", "n0", "key-0")


class Store:
    """Stands for `parcels.Parcels`."""

    most = 1 << 20

    def __init__(self) -> None:
        self.size = 0
        self.reclaim: Any = None

    def take_room(self, size: int) -> None:
        self.size += size

    def count(self, size: int) -> None:
        self.size += size

    def give_room(self, size: int) -> None:
        self.size -= size


class Outside:
    def __init__(self) -> None:
        self.told: list[tuple[str, str, Any]] = []

    def say(self, swarm_id: str, peer: str, message: Any) -> None:
        self.told.append((swarm_id, peer, message))

    def is_up(self, swarm_id: str, peer: str) -> bool:
        return True

    def has_room(self, swarm_id: str, peer: str) -> bool:
        return True

    def post(self, call: Callable[[], None]) -> object:
        raise AssertionError


class Asked:
    connection = 3
    value: Value | None = None

    def __init__(self, body: Any, at: Instance = AT) -> None:
        self.at, self.body = at, body
        self.told: list[Any] = []

    def reply(self, told: dict[str, Any], fds: list[int]) -> None:
        self.told.append(told)

    def fail(self, kind: str, sentence: str) -> None:
        self.told.append((kind, sentence))


class Made:
    def __init__(self) -> None:
        self.known, self.store, self.outside = KnownPeers(), Store(), Outside()
        self.desks = Desks("n0", self.known, self.store, self.outside)  # type: ignore[arg-type]

    def directory(self, swarm_id: str, *peers: Peer) -> None:
        self.known.apply(DirectoryChanged(swarm_id, "e", True, (ME, *peers)))
        self.desks.directories_changed()


@pytest.fixture
def made() -> Iterator[Made]:
    found = Made()
    yield found
    found.desks.close()
    assert found.store.size == 0


def barrier(timeout: float, room: int | None = None) -> CallCollective:
    return CallCollective(
        n=1, number=0, kind=Kind.BARRIER, words="barrier", timeout=timeout, room=room
    )


def test_a_call_that_comes_before_the_directory_ends_in_time(made: Made) -> None:
    asked = Asked(barrier(5.0))
    made.desks.take(asked)
    due = made.desks.due
    assert due is not None
    made.desks.tick(due - 0.1)
    assert asked.told == []
    made.desks.tick(due)
    ((kind, sentence),) = asked.told
    assert kind == "Timeout"
    assert sentence.startswith("Waited 5 s in vain: barrier waits until this node hears where")


def test_what_it_waited_for_the_directory_counts(made: Made) -> None:
    asked = Asked(barrier(5.0))
    made.desks.take(asked)
    due = made.desks.due
    made.directory("s")
    assert made.desks.due == due
    assert due is not None
    made.desks.tick(due)
    assert asked.told[0][0] == "Timeout"


@pytest.mark.parametrize("how", ["abandoned", "ended", "forgotten"])
def test_a_room_of_which_no_call_is_made_is_given_back(made: Made, how: str) -> None:
    asked = Asked(MakeRoom(n=1, size=100_000))
    made.desks.take(asked)
    assert made.store.size > 0
    early = Asked(barrier(5.0, room=asked.told[0]["room"]))
    made.desks.take(early)
    if how == "abandoned":
        made.desks.abandon(early)
    elif how == "ended":
        made.desks.end(AT)
    else:
        made.desks.forget("s")
    made.desks.end(AT)
    assert made.store.size == 0


def test_a_room_goes_with_the_connection_over_which_it_came(made: Made) -> None:
    asked = Asked(MakeRoom(n=1, size=100_000))
    made.desks.take(asked)
    made.desks.disconnected(AT, 4)
    assert made.store.size > 0
    made.desks.disconnected(AT, asked.connection)
    made.desks.end(AT)
    assert made.store.size == 0


def test_one_key_takes_no_room_of_others_with_swarms_that_it_makes_up(made: Made) -> None:
    made.desks.unheard("s", "key-1")
    for at in range(10 * MOST_UNHEARD):
        made.desks.unheard(f"made up {at}", "key-2")
    made.directory("s", Peer("n1", "n1", "key-1"))
    assert [(swarm_id, peer) for swarm_id, peer, _ in made.outside.told].count(("s", "n1")) >= 1
    assert made.desks.directories_changed() == []
