"""Planes that end in good order as soon as what their member called for has come.

Links are slow, full and replaced, so what a plane has said is often on its way yet, or lost with a
link, while others have told it all they have.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from manta.node.plane.collectives import hearing
from manta.node.plane.collectives.leaving import lacking, say_farewell
from manta.node.plane.collectives.messages import CallName, Places
from manta.transports.collectives.calls import Kind
from manta.transports.collectives.messages import Left
from manta.transports.collectives.table import DIRECT_PEERS
from manta.transports.errors import RemoteProtocolError
from tests.simulation.collective_lab import LARGE, Lab, Make, labs
from tests.simulation.network import SWARM
from tests.support.effort import tries


@pytest.fixture
def make() -> Iterator[Make]:
    with labs(shares=False) as lab:
        yield lab


def leave_when_answered(lab: Lab, rank: int, says_farewell: bool = False) -> None:
    """As a peer of a mesh does whose script ends with the call: all others take it for lost."""
    plane = [*lab.net.values()][rank]
    calls, peers = plane.desk.calls, plane.desk.peers
    there = {name for name, one in lab.net.items() if one.is_alive}
    if (rank, 0, 0) not in lab.outcomes or lacking(calls, peers, waits=True) & there:
        lab.clock.soon(0.01, partial(leave_when_answered, lab, rank, says_farewell))
    elif not says_farewell:
        say_farewell(calls, peers, ())
        leave_when_answered(lab, rank, True)
    else:
        plane.crash()
        for name in there - {plane.name}:
            lab.clock.soon(0.05, partial(lose, lab, plane.name, name))


def lose(lab: Lab, lost: str, at: str) -> None:
    if not lab.net[at].is_alive:
        return
    there = set(lab.net[at].known.nodes(SWARM)) - {lost}
    lab.introduce(sorted(there), to=[at])
    given_up = [rank for rank, name in enumerate(lab.net) if name not in there]
    lab.tell([*lab.net], to=[at], given_up=given_up)


def crash(lab: Lab, name: str) -> None:
    lab.net[name].crash()
    for other in lab.net:
        lab.clock.soon(0.5, partial(lose, lab, name, other))


def trouble(lab: Lab) -> None:
    lab.clock.random.choice([*lab.net.values()]).flap()
    lab.link()
    lab.clock.soon(0.3, partial(trouble, lab))


@pytest.mark.parametrize("peers", [4, DIRECT_PEERS + 2])
@pytest.mark.parametrize("size", [4, LARGE])
@pytest.mark.parametrize("kind", list(Kind))
def test_who_leaves_after_its_call_leaves_nobody_without_what_it_gave(
    make: Make, kind: Kind, size: int, peers: int
) -> None:
    names = [f"n{at:02}" for at in range(peers)]
    for seed in range(tries(8 if peers <= DIRECT_PEERS else 2)):
        lab = make(*names, seed=seed)
        lab.tell(names)
        trouble(lab)
        for rank, name in enumerate(names):
            lab.clock.soon(0.5, partial(lab.call, rank, name, kind=kind, size=size))
            leave_when_answered(lab, rank)
        lab.until(*((rank, 0) for rank in range(peers)))
        assert {error for _, _, error in lab.outcomes.values()} == {""}, f"seed {seed}"


@pytest.mark.parametrize("kind", list(Kind))
def test_a_call_ends_at_all_that_are_left_where_some_leave_and_one_crashes(
    make: Make, kind: Kind
) -> None:
    names = [f"n{at:02}" for at in range(DIRECT_PEERS + 1)]
    for seed in range(tries(3)):
        lab = make(*names, seed=seed)
        lab.tell(names)
        crashing = lab.clock.random.randrange(1, len(names))
        staying = [rank for rank in range(len(names)) if rank != crashing]
        for rank in staying:
            lab.clock.soon(0.5, partial(lab.call, rank, names[rank], kind=kind))
            leave_when_answered(lab, rank)
        lab.call(crashing, names[crashing], kind=kind)
        lab.clock.soon(1.0, partial(crash, lab, names[crashing]))
        lab.until(*((rank, 0) for rank in staying))
        assert {lab.errors()[rank, 0] for rank in staying} <= {"", "PeerLost"}, f"seed {seed}"


def test_who_has_left_is_lost_to_the_calls_that_it_has_not_made(make: Make) -> None:
    names = ["a", "b", "c"]
    lab = make(*names)
    lab.tell(names)
    for rank, name in enumerate(names):
        lab.call(rank, name)
    lab.until((0, 0), (1, 0), (2, 0))
    lab.call(0, "a", number=1)
    leave_when_answered(lab, 2)
    lab.call(1, "b", number=1)
    lab.until((0, 0, 1), (1, 0, 1))
    assert lab.errors(1) == {(0, 0): "PeerLost", (1, 0): "PeerLost"}
    assert set(lab.errors(0).values()) == {""}


def test_who_leaves_calls_open_without_end_breaks_the_protocol(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "FAR", 10)
    lab = make("a", "b")
    lab.tell("ab")
    name, places = CallName(0, "t", 1), Places(0, b"")
    lab.net["b"].desk.peers.say("a", name, places, Left(tuple(range(11))))
    with pytest.raises(RemoteProtocolError, match="leaves 11 calls open"):
        lab.run(10.0)
