"""What the desks of a plane share: calls that come before their swarm is known, rooms, keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from manta.node.peers.directory import DirectoryChanged
from manta.node.peers.known import KnownPeers
from manta.node.plane.collectives import desks
from manta.node.plane.collectives.desks import MOST_UNHEARD, Desks
from manta.node.plane.requests import CallCollective, MakeRoom
from manta.protocol.base import Instance
from manta.protocol.peers import Peer
from manta.transports.collectives.calls import Kind
from manta.transports.exchange.letters import Value
from tests.support.budgets import Budget

AT = Instance("s", "w", 0, 0, 0)
ME = Peer("n0", "n0", "key-0")


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
    refusal = ""
    nodes = 0

    def __init__(self, body: Any, at: Instance = AT) -> None:
        self.at, self.body = at, body
        self.told: list[Any] = []

    def reply(self, told: dict[str, Any], fds: list[int]) -> None:
        self.told.append(told)

    def fail(self, kind: str, sentence: str) -> None:
        self.told.append((kind, sentence))


class Made:
    def __init__(self, folder: Path) -> None:
        self.known, self.outside = KnownPeers(), Outside()
        self.budget = Budget(1 << 20, 0, folder)
        self.desks = Desks("n0", self.known, self.budget, self.outside)  # type: ignore[arg-type]

    def directory(self, swarm_id: str, *peers: Peer) -> None:
        self.known.apply(DirectoryChanged(swarm_id, "e", True, (ME, *peers)))
        self.desks.directories_changed()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    found = Made(tmp_path)
    yield found
    found.desks.close()
    assert found.budget.sizes == (0, 0)


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
    assert made.budget.memory.used > 0
    early = Asked(barrier(5.0, room=asked.told[0]["room"]))
    made.desks.take(early)
    if how == "abandoned":
        made.desks.abandon(early)
    elif how == "ended":
        made.desks.end(AT)
    else:
        made.desks.forget("s")
    made.desks.end(AT)
    assert made.budget.memory.used == 0


def test_a_room_comes_with_its_descriptor_unless_it_is_mapped(made: Made) -> None:
    def asks(*mapped: int) -> dict[str, Any]:
        asked = Asked(MakeRoom(n=1, size=100_000, mapped=mapped))
        made.desks.take(asked)
        return dict(asked.told[0])

    first = asks()
    number = first["room"]
    assert (first["fds"], first["gone"]) == (1, [])
    again = asks(number, 99)
    assert (again["room"], again["gone"]) == (number, [99])
    assert "fds" not in again
    assert asks()["fds"] == 1  # the attempt has unmapped it
    made.desks.end(AT)


def test_a_room_goes_with_the_connection_over_which_it_came(made: Made) -> None:
    asked = Asked(MakeRoom(n=1, size=100_000))
    made.desks.take(asked)
    made.desks.disconnected(AT, 4)
    assert made.budget.memory.used > 0
    made.desks.disconnected(AT, asked.connection)
    made.desks.end(AT)
    assert made.budget.memory.used == 0


def test_the_next_attempt_writes_where_the_one_before_did_whose_process_is_gone(made: Made) -> None:
    first, following = Asked(MakeRoom(n=1, size=100_000)), Instance("s", "w", 0, 1, 0)
    made.desks.take(first)
    made.desks.end(AT, is_gone=True)
    again = Asked(MakeRoom(n=1, size=100_000), following)
    made.desks.take(again)
    assert again.told == [{**first.told[0], "fds": 1}]
    made.desks.end(following)
    assert made.budget.memory.used == 0


def test_one_key_takes_no_room_of_others_with_swarms_that_it_makes_up(made: Made) -> None:
    made.desks.unheard("s", "key-1")
    for at in range(10 * MOST_UNHEARD):
        made.desks.unheard(f"made up {at}", "key-2")
    made.directory("s", Peer("n1", "n1", "key-1"))
    assert [(swarm_id, peer) for swarm_id, peer, _ in made.outside.told].count(("s", "n1")) >= 1
    assert made.desks.directories_changed() == []


def test_calls_of_one_swarm_that_came_early_leave_room_for_those_of_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(desks, "MOST_EARLY", 64)
    made = Made(tmp_path)
    asked = [Asked(barrier(5.0)) for _ in range(60)]
    for one in asked:
        made.desks.take(one)
    refused = [one.told for one in asked if one.told]
    assert len(refused) == 4
    for ((kind, sentence),) in refused:
        assert kind == "ResourceExhaustionError"
        assert "56 of them for this swarm, which may have 56 beside the others" in sentence
    other = Asked(barrier(5.0), Instance("other", "w", 0, 0, 0))
    made.desks.take(other)
    assert not other.told
    for one in asked[:2]:
        made.desks.abandon(one)
    made.desks.take(again := Asked(barrier(5.0)))
    assert not again.told
    made.desks.close()
