"""What came of calls, and that they were refused, after planes, nodes and attempts are gone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import pytest

from manta.node.plane.collectives import pieces
from manta.node.plane.collectives.messages import CallName
from manta.node.plane.requests import CallCollective
from manta.protocol.base import Instance
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.protocol.states import AttemptState
from manta.transports.collectives.calls import Kind
from tests.simulation.collective_planes import EPOCH, Asked, Plane
from tests.simulation.network import SWARM, Clock
from tests.support.collective_calls import INLINE, small_sizes

Key = tuple[int, int]
"""A rank, and an attempt of it."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pieces, "INLINE", 8 * INLINE)
    with small_sizes():
        yield


class Lab:
    """Planes of nodes that are all linked, and members of one task that call when they are told."""

    def __init__(self, seed: int, *names: str) -> None:
        self.clock, self.net = Clock(seed), dict[str, Plane]()
        self.outcomes = dict[Key, Any]()
        for name in names:
            Plane(self.clock, name, self.net)
        for plane in self.net.values():
            plane.introduced(list(self.net))
        for one, other in combinations(self.net, 2):
            self.net[one].dial(other)

    def told(
        self,
        nodes: Sequence[str],
        attempts: Sequence[int],
        finished: Collection[int] = (),
        by: Collection[str] = (),
        stays: Sequence[int] = (),
    ) -> None:
        """The roster, by rank; all planes are told it, or these."""
        instances = tuple(
            RosterInstance(
                rank,
                node,
                node,
                attempt,
                AttemptState.FINISHED if rank in finished else AttemptState.RUNNING,
                stay=stays[rank] if stays else 0,
            )
            for rank, (node, attempt) in enumerate(zip(nodes, attempts, strict=True))
        )
        task = RosterTask("t", "RUNNING", len(nodes), instances=instances)
        for name in by or self.net:
            self.net[name].told(Roster(EPOCH, 0, {"t": task}, {}))

    def calls(
        self,
        node: str,
        rank: int,
        attempt: int,
        kind: Kind,
        size: int = 2,
        root: int = 0,
        refusal: str = "",
    ) -> None:
        """`refusal`: why the node does not take the value."""
        value = f"{rank}{attempt}".encode().ljust(size, b".") if size else b""
        sizes: tuple[int, ...] = (size,) if size else ()
        if kind is Kind.SCATTER:
            sizes = (0, size) if rank == root else ()
            value = value if rank == root else b""
        body = CallCollective(
            n=1, number=0, kind=kind, words="call()", timeout=60.0, root=root, sizes=sizes
        )

        def answered(*answer: Any) -> None:
            self.outcomes[rank, attempt] = answer

        asked = Asked(Instance(SWARM, "t", rank, 0, attempt), body, value, answered)
        asked.refusal = refusal
        self.net[node].ask(asked)

    def begins_anew(self, node: str) -> None:
        """Its plane crashes, and is told who is there; it is yet to be told of the roster."""
        self.net[node].crash()
        plane = Plane(self.clock, node, self.net, self.net[node].disk)
        plane.introduced(list(self.net))
        for other in self.net:
            if other != node:
                plane.dial(other)

    def close(self) -> None:
        for plane in self.net.values():
            plane.desk.close()
            plane.pool.close()
            plane.sending.clear()
            plane.expecting.clear()


Make = Callable[..., Lab]


@pytest.fixture
def lab() -> Iterator[Make]:
    made: list[Lab] = []

    def make(seed: int, *names: str) -> Lab:
        made.append(Lab(seed, *names))
        return made[-1]

    yield make
    while made:
        made.pop().close()


def test_what_a_plane_had_before_its_instance_was_elsewhere_does_not_count(lab: Make) -> None:
    """Those that went on without it have crashed since, and what came of the call is another."""
    made = lab(1, "a", "b", "c")
    made.told("ab", (0, 0))
    for rank, node in enumerate("ab"):
        made.calls(node, rank, 0, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 2)
    made.begins_anew("b")
    made.told("cb", (1, 1), by="bc", stays=(1, 0))  # a is told later what it is by then
    for rank, node in enumerate("cb"):
        made.calls(node, rank, 1, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 4)
    made.told("ab", (2, 1), stays=(2, 0))
    made.calls("a", 0, 2, Kind.ALL_GATHER)
    made.clock.run(lambda: (0, 2) in made.outcomes)
    assert made.outcomes[0, 2] == made.outcomes[1, 1]
    assert [data for _, data in made.outcomes[0, 2][0]] == [b"01", b"11"]


def test_what_a_node_had_before_it_was_lost_does_not_count(lab: Make) -> None:
    """Another instance on it has stayed in the roster all the time."""
    made = lab(1, "a", "b")
    made.told("aab", (0, 0, 0))
    for rank, node in enumerate("aab"):
        made.calls(node, rank, 0, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 3)
    made.net["b"].introduced(["b"])
    made.begins_anew("b")
    made.net["b"].introduced(["b"])
    made.told("bbb", (1, 1, 1), by="b", stays=(1, 1, 0))
    for rank in range(3):
        made.calls("b", rank, 1, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 6)
    made.net["b"].introduced(["a", "b"])
    made.told("aab", (2, 2, 1), stays=(2, 2, 0))
    made.calls("a", 0, 2, Kind.ALL_GATHER)
    made.clock.run(lambda: (0, 2) in made.outcomes)
    assert made.outcomes[0, 2] == made.outcomes[2, 1]


def test_a_node_that_was_lost_has_what_finished_instances_gave_to_a_call_that_needs_all(
    lab: Make,
) -> None:
    """No next attempt of them says that it was lost, and others can have come to nothing else."""
    made = lab(1, "a", "b")
    made.told("aab", (0, 0, 0))
    for rank, node in enumerate("aab"):
        made.calls(node, rank, 0, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 3)
    made.told("aab", (0, 1, 0), finished=[0, 2], stays=(1, 1, 0))
    made.calls("a", 1, 1, Kind.ALL_GATHER)
    made.clock.run(lambda: (1, 1) in made.outcomes)
    assert made.outcomes[1, 1] == made.outcomes[1, 0]


def test_what_a_lost_node_was_given_to_keep_is_not_waited_for(lab: Make) -> None:
    """Who waits for it on another node has heard nothing of that node meanwhile."""
    made = lab(1, "a", "b")
    made.told("bab", (0, 0, 0))
    made.calls("a", 1, 0, Kind.GATHER, LARGE)
    made.calls("b", 0, 0, Kind.GATHER, LARGE)
    made.calls("b", 2, 0, Kind.GATHER, LARGE)
    made.clock.run(lambda: any(one.ready for one in made.net["a"].sending.values()))
    made.told("bab", (0, 0, 0), finished=[1], stays=(0, 1, 0))
    made.clock.run(lambda: (0, 0) in made.outcomes)
    assert made.outcomes[0, 0][2].startswith("PeerLost: "), made.outcomes[0, 0]
    assert "t.1" in made.outcomes[0, 0][2]


LARGE = 5_000


@pytest.mark.parametrize("kind", [Kind.ALL_GATHER, Kind.GATHER, Kind.SCATTER])
def test_what_a_finished_member_had_or_gave_comes_from_its_disk(lab: Make, kind: Kind) -> None:
    """Its plane crashes while another one lacks it, of which no attempt begins anew."""
    made = straggler(lab, kind)
    made.net["a"].end(Instance(SWARM, "t", 0, 0, 0), counts=True)
    made.begins_anew("a")
    made.told("ab", (0, 0), finished=[0])
    made.clock.run(lambda: (1, 0) in made.outcomes)
    values, _, error = made.outcomes[1, 0]
    wanted = [b"00"] if kind is Kind.SCATTER else [b"00", b"10"]
    assert (error, [data[:2] for _, data in values]) == ("", wanted)


def test_what_a_lost_node_has_on_disk_counts_where_there_can_be_nothing_else(lab: Make) -> None:
    """Its instance has finished, and no plane has what came of the call in memory."""
    made = lab(1, "a", "b")
    made.told("ab", (0, 0))
    for rank, node in enumerate("ab"):
        made.calls(node, rank, 0, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 2)
    made.net["a"].end(Instance(SWARM, "t", 0, 0, 0), counts=True)
    made.begins_anew("a")
    made.begins_anew("b")
    made.told("ab", (0, 1), finished=[0], stays=(1, 0))
    made.calls("b", 1, 1, Kind.ALL_GATHER)
    made.clock.run(lambda: (1, 1) in made.outcomes)
    assert made.outcomes[1, 1] == made.outcomes[1, 0]


def test_what_was_refused_stays_so_though_all_planes_that_knew_are_gone(lab: Make) -> None:
    made = lab(1, "a")
    made.told("aa", (0, 0))
    full(made.net["a"])
    for rank in (0, 1):
        made.calls("a", rank, 0, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 2)
    emptied(made.net["a"])
    made.net["a"].end(Instance(SWARM, "t", 0, 0, 0), counts=True)
    made.begins_anew("a")
    made.told("aa", (0, 1), finished=[0])
    made.calls("a", 1, 1, Kind.ALL_GATHER)
    made.clock.run(lambda: (1, 1) in made.outcomes)
    assert set(errors(made).values()) == {"ResourceExhaustionError"}


FIRST = CallName(0, "t", 0)


def full(plane: Plane) -> None:
    """It takes nothing more that is small."""
    room = plane.pool._small
    room.take("another", room.most)


def emptied(plane: Plane) -> None:
    room = plane.pool._small
    room.give("another", room.of("another"))


def errors(made: Lab) -> dict[Key, str]:
    return {key: answer[2].partition(":")[0] for key, answer in made.outcomes.items()}


@pytest.mark.parametrize("kind", [Kind.BARRIER, Kind.ALL_GATHER])
@pytest.mark.parametrize("again", [0, 1])
def test_what_was_refused_stays_so_for_a_next_attempt_though_there_is_room_by_then(
    lab: Make, kind: Kind, again: int
) -> None:
    made = lab(1, "a", "b")
    made.told("ab", (0, 0))
    full(made.net["a"])
    for rank, node in enumerate("ab"):
        made.calls(node, rank, 0, kind, 0 if kind is Kind.BARRIER else 2)
    made.clock.run(lambda: len(made.outcomes) == 2)
    emptied(made.net["a"])
    made.told("ab", [int(rank == again) for rank in (0, 1)])
    made.calls("ab"[again], again, 1, kind, 0 if kind is Kind.BARRIER else 2)
    made.clock.run(lambda: len(made.outcomes) == 3)
    assert set(errors(made).values()) == {"ResourceExhaustionError"}
    planes = made.net.values()
    assert not any(plane.desk.calls.all for plane in planes)
    made.clock.run(lambda: all(plane.budget.sizes == (0, 0) for plane in planes))


@pytest.mark.parametrize("restarts", ["a", "b"])
def test_what_was_refused_stays_so_though_one_plane_forgot_it(lab: Make, restarts: str) -> None:
    made = lab(1, "a", "b", "c")
    made.told("abc", (0, 0, 0))
    full(made.net["a"])
    for rank, node in enumerate("abc"):
        made.calls(node, rank, 0, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 3)
    emptied(made.net["a"])
    made.begins_anew(restarts)
    attempts = [int(node == restarts) for node in "abc"]
    made.told("abc", attempts)
    rank = "abc".index(restarts)
    made.calls(restarts, rank, 1, Kind.ALL_GATHER)
    made.clock.run(lambda: (rank, 1) in made.outcomes)
    assert set(errors(made).values()) == {"ResourceExhaustionError"}


def test_who_has_no_room_for_a_call_that_others_have_been_served_is_given_what_came_of_it(
    lab: Make,
) -> None:
    """Its plane had begun anew meanwhile, and others fill its node."""
    made = lab(1, "a", "b")
    made.told("ab", (0, 0))
    for rank, node in enumerate("ab"):
        made.calls(node, rank, 0, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 2)
    made.begins_anew("b")
    full(made.net["b"])
    made.told("ab", (0, 1))
    made.calls("b", 1, 1, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 3)
    emptied(made.net["b"])
    assert made.outcomes[1, 1][0] == made.outcomes[0, 0][0]


def test_a_refusal_at_the_root_is_told_to_who_gives_later_and_to_a_next_attempt(lab: Make) -> None:
    made = lab(1, "a", "b", "c")
    made.told("abc", (0, 0, 0))
    full(made.net["a"])
    made.calls("b", 1, 0, Kind.GATHER)  # it has given, and goes on
    made.calls("a", 0, 0, Kind.GATHER)
    made.clock.run(lambda: len(made.outcomes) == 2)
    emptied(made.net["a"])
    made.told("abc", (1, 1, 0))
    made.calls("a", 0, 1, Kind.GATHER)
    heard = made.net["c"].desk.calls
    made.clock.run(lambda: (0, 1) in made.outcomes and heard.refused(FIRST) is not None)
    made.calls("b", 1, 1, Kind.GATHER)
    made.calls("c", 2, 0, Kind.GATHER)
    made.clock.run(lambda: len(made.outcomes) == 5)
    refused = "ResourceExhaustionError"
    assert errors(made) == {
        (0, 0): refused,
        (0, 1): refused,
        (1, 0): "",
        (1, 1): "",
        (2, 0): refused,
    }


def test_a_value_that_a_node_takes_no_more_is_refused_to_all(lab: Make) -> None:
    """It never came to the plane; who waits for it hears why."""
    made = lab(1, "a", "b")
    made.told("ab", (0, 0))
    made.calls("a", 0, 0, Kind.ALL_GATHER, refusal="no room here")
    made.calls("b", 1, 0, Kind.ALL_GATHER)
    made.clock.run(lambda: len(made.outcomes) == 2)
    assert all("no room here" in answer[2] for answer in made.outcomes.values())


def straggler(lab: Make, kind: Kind) -> Lab:
    """Of two members the second one waits for what comes of the call, or what the first gave."""
    for seed in range(100):
        made = lab(seed, "a", "b")
        made.told("ab", (0, 0))
        for rank, node in enumerate("ab"):
            made.calls(node, rank, 0, kind, LARGE, root=int(kind is Kind.GATHER))
        made.clock.run(partial(_has_one_of, made.outcomes, {(0, 0)}, {(1, 0)}))
        if (1, 0) not in made.outcomes:
            return made
    raise AssertionError("it waited in none")


def _has_one_of(outcomes: Collection[Key], *wanted: set[Key]) -> bool:
    return any(one.issubset(outcomes) for one in wanted)
