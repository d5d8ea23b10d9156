"""What came of calls, and that they were refused, after planes, nodes and attempts are gone."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

import pytest

from manta.node.plane.collectives import post
from manta.node.plane.collectives.messages import CallName
from manta.protocol.base import Instance
from manta.transports.collectives.calls import Kind
from tests.simulation.collective_lab import LARGE, Lab, Make, labs, value_of
from tests.simulation.collective_planes import Plane
from tests.simulation.network import SWARM
from tests.support.collective_calls import INLINE

FIRST = CallName(0, "t", 0)


@pytest.fixture
def make() -> Iterator[Make]:
    """The nodes have another swarm in common."""
    with labs(shares=True) as lab:
        yield lab


def test_what_a_plane_had_before_its_instance_was_elsewhere_does_not_count(make: Make) -> None:
    """Those that went on without it have crashed since, and what came of the call is another."""
    lab = make("a", "b", "c")
    lab.tell("ab", (0, 0))
    for rank, node in enumerate("ab"):
        lab.call(rank, node)
    lab.clock.run(lambda: len(lab.outcomes) == 2)
    lab.restart_at_once("b")
    lab.tell("cb", (1, 1), to="bc", stays=(1, 0))  # a is told later what it is by then
    for rank, node in enumerate("cb"):
        lab.call(rank, node, 1)
    lab.clock.run(lambda: len(lab.outcomes) == 4)
    lab.tell("ab", (2, 1), stays=(2, 0))
    lab.call(0, "a", 2)
    lab.until((0, 2))
    assert lab.got(0, 2) == lab.got(1, 1) == {rank: value_of(rank, 1, 4) for rank in range(2)}


def test_what_a_node_had_before_it_was_lost_does_not_count(make: Make) -> None:
    """Another instance on it has stayed in the roster all the time."""
    lab = make("a", "b")
    lab.tell("aab", (0, 0, 0))
    for rank, node in enumerate("aab"):
        lab.call(rank, node)
    lab.clock.run(lambda: len(lab.outcomes) == 3)
    lab.net["b"].introduced(["b"])
    lab.restart_at_once("b")
    lab.net["b"].introduced(["b"])
    lab.tell("bbb", (1, 1, 1), to="b", stays=(1, 1, 0))
    for rank in range(3):
        lab.call(rank, "b", 1)
    lab.clock.run(lambda: len(lab.outcomes) == 6)
    lab.net["b"].introduced(["a", "b"])
    lab.tell("aab", (2, 2, 1), stays=(2, 2, 0))
    lab.call(0, "a", 2)
    lab.until((0, 2))
    assert lab.got(0, 2) == lab.got(2, 1)


def test_a_node_that_was_lost_has_what_finished_instances_gave_to_a_call_that_needs_all(
    make: Make,
) -> None:
    """No next attempt of them says that it was lost, and others can have come to nothing else."""
    lab = make("a", "b")
    lab.tell("aab", (0, 0, 0))
    for rank, node in enumerate("aab"):
        lab.call(rank, node)
    lab.clock.run(lambda: len(lab.outcomes) == 3)
    lab.tell("aab", (0, 1, 0), finished=[0, 2], stays=(1, 1, 0))
    lab.call(1, "a", 1)
    lab.until((1, 1))
    assert lab.got(1, 1) == lab.got(1, 0)


def test_what_a_lost_node_was_given_to_keep_is_not_waited_for(make: Make) -> None:
    """Who waits for it on another node has heard nothing of that node meanwhile."""
    lab = make("a", "b")
    lab.tell("bab", (0, 0, 0))
    lab.call(1, "a", 0, Kind.GATHER, LARGE)
    lab.call(0, "b", 0, Kind.GATHER, LARGE)
    lab.call(2, "b", 0, Kind.GATHER, LARGE)
    lab.clock.run(lambda: any(one.ready for one in lab.net["a"].sending.values()))
    lab.tell("bab", (0, 0, 0), finished=[1], stays=(0, 1, 0))
    lab.until((0, 0))
    assert lab.error(0).startswith("PeerLost: ")
    assert "t.1" in lab.error(0)


@pytest.mark.parametrize("kind", [Kind.ALL_GATHER, Kind.GATHER, Kind.SCATTER])
def test_what_a_finished_member_had_or_gave_comes_from_its_disk(make: Make, kind: Kind) -> None:
    """Its plane crashes while another one lacks it, of which no attempt begins anew."""
    lab = straggler(make, kind)
    lab.net["a"].end(Instance(SWARM, "t", 0, 0, 0), counts=True)
    lab.restart_at_once("a")
    lab.tell("ab", (0, 0), finished=[0])
    lab.until((1, 0))
    given = [0] if kind is Kind.SCATTER else [0, 1]
    assert [*lab.got(1).values()] == [value_of(rank, 0, LARGE) for rank in given]


def test_what_a_lost_node_has_on_disk_counts_where_there_can_be_nothing_else(make: Make) -> None:
    """Its instance has finished, and no plane has what came of the call in memory."""
    lab = make("a", "b")
    lab.tell("ab", (0, 0))
    for rank, node in enumerate("ab"):
        lab.call(rank, node)
    lab.clock.run(lambda: len(lab.outcomes) == 2)
    lab.net["a"].end(Instance(SWARM, "t", 0, 0, 0), counts=True)
    lab.restart_at_once("a")
    lab.restart_at_once("b")
    lab.tell("ab", (0, 1), finished=[0], stays=(1, 0))
    lab.call(1, "b", 1)
    lab.until((1, 1))
    assert lab.got(1, 1) == lab.got(1, 0)


def test_what_was_refused_stays_so_though_all_planes_that_knew_are_gone(make: Make) -> None:
    lab = make("a")
    lab.tell("aa", (0, 0))
    full(lab.net["a"])
    for rank in (0, 1):
        lab.call(rank, "a")
    lab.clock.run(lambda: len(lab.outcomes) == 2)
    emptied(lab.net["a"])
    lab.net["a"].end(Instance(SWARM, "t", 0, 0, 0), counts=True)
    lab.restart_at_once("a")
    lab.tell("aa", (0, 1), finished=[0])
    lab.call(1, "a", 1)
    lab.until((1, 1))
    assert set(lab.errors().values()) == {"ResourceExhaustionError"}


def test_who_was_served_before_others_were_refused_is_refused_once_its_plane_forgot_that(
    make: Make,
) -> None:
    """The root has finished, and what it gave was let go of with the refusal."""
    lab = make("a")
    lab.tell("aaa")
    for rank in (0, 1):
        lab.call(rank, "a", kind=Kind.SCATTER)
    lab.until((0, 0), (1, 0))
    full(lab.net["a"])
    lab.call(2, "a", kind=Kind.SCATTER)
    lab.until((2, 0))
    emptied(lab.net["a"])
    assert lab.errors() == {(0, 0): "", (1, 0): "", (2, 0): "ResourceExhaustionError"}
    lab.net["a"].end(Instance(SWARM, "t", 0, 0, 0), counts=True)
    lab.restart_at_once("a")
    lab.tell("aaa", (0, 1, 0), finished=[0, 2])
    lab.call(1, "a", 1, Kind.SCATTER)
    lab.until((1, 1))
    assert "has no room for a collective" in lab.error(1, 1)


def full(plane: Plane) -> None:
    """It takes nothing more that is small."""
    room = plane.pool._small
    room.take("another", room.most)


def emptied(plane: Plane) -> None:
    room = plane.pool._small
    room.give("another", room.of("another"))


@pytest.mark.parametrize("kind", [Kind.BARRIER, Kind.ALL_GATHER])
@pytest.mark.parametrize("again", [0, 1])
def test_what_was_refused_stays_so_for_a_next_attempt_though_there_is_room_by_then(
    make: Make, kind: Kind, again: int
) -> None:
    lab = make("a", "b")
    lab.tell("ab", (0, 0))
    full(lab.net["a"])
    for rank, node in enumerate("ab"):
        lab.call(rank, node, 0, kind)
    lab.clock.run(lambda: len(lab.outcomes) == 2)
    emptied(lab.net["a"])
    lab.tell("ab", [int(rank == again) for rank in (0, 1)])
    lab.call(again, "ab"[again], 1, kind)
    lab.clock.run(lambda: len(lab.outcomes) == 3)
    assert set(lab.errors().values()) == {"ResourceExhaustionError"}
    planes = lab.net.values()
    assert not any(plane.desk.calls.all for plane in planes)
    lab.clock.run(lambda: all(plane.budget.sizes == (0, 0) for plane in planes))


@pytest.mark.parametrize("restarts", ["a", "b"])
def test_what_was_refused_stays_so_though_one_plane_forgot_it(make: Make, restarts: str) -> None:
    lab = make("a", "b", "c")
    lab.tell("abc", (0, 0, 0))
    full(lab.net["a"])
    for rank, node in enumerate("abc"):
        lab.call(rank, node)
    lab.clock.run(lambda: len(lab.outcomes) == 3)
    emptied(lab.net["a"])
    lab.restart_at_once(restarts)
    attempts = [int(node == restarts) for node in "abc"]
    lab.tell("abc", attempts)
    rank = "abc".index(restarts)
    lab.call(rank, restarts, 1)
    lab.until((rank, 1))
    assert set(lab.errors().values()) == {"ResourceExhaustionError"}


def test_who_seeks_what_came_of_a_refused_call_and_is_behind_is_told_nothing_of_later_places(
    make: Make,
) -> None:
    """Where others are elsewhere, planes have other numbers."""
    lab = make("a", "b", "c")
    lab.tell(("a", "b", "c"))
    lab.call(0, "a", refusal="It is full.")
    lab.call(1, "b")
    lab.call(2, "c")
    lab.until((0, 0), (1, 0), (2, 0))
    lab.tell(("a", "b", "c"), attempts=(0, 1, 0), to=["b"])
    lab.tell(("c", "b", "a"), attempts=(1, 1, 1), to=["a", "c"])
    lab.call(1, "b", attempt=1)
    lab.run(1.0)
    assert (1, 1, 0) not in lab.outcomes
    lab.tell(("c", "b", "a"), attempts=(1, 1, 1), to=["b"])
    lab.call(0, "c", attempt=1)
    lab.call(2, "a", attempt=1)
    lab.until((0, 1), (1, 1), (2, 1))
    assert set(lab.errors().values()) == {"ResourceExhaustionError"}


def test_who_has_no_room_for_a_call_that_others_have_been_served_is_given_what_came_of_it(
    make: Make,
) -> None:
    """Its plane had begun anew meanwhile, and others fill its node."""
    lab = make("a", "b")
    lab.tell("ab", (0, 0))
    for rank, node in enumerate("ab"):
        lab.call(rank, node)
    lab.clock.run(lambda: len(lab.outcomes) == 2)
    lab.restart_at_once("b")
    full(lab.net["b"])
    lab.tell("ab", (0, 1))
    lab.call(1, "b", 1)
    lab.clock.run(lambda: len(lab.outcomes) == 3)
    emptied(lab.net["b"])
    assert lab.got(1, 1) == lab.got(0)


def test_a_refusal_at_the_root_is_told_to_who_gives_later_and_to_a_next_attempt(make: Make) -> None:
    lab = make("a", "b", "c")
    lab.tell("abc", (0, 0, 0))
    full(lab.net["a"])
    lab.call(1, "b", 0, Kind.GATHER)  # it has given, and goes on
    lab.call(0, "a", 0, Kind.GATHER)
    lab.clock.run(lambda: len(lab.outcomes) == 2)
    emptied(lab.net["a"])
    lab.tell("abc", (1, 1, 0))
    lab.call(0, "a", 1, Kind.GATHER)
    heard = lab.net["c"].desk.calls
    lab.clock.run(lambda: (0, 1, 0) in lab.outcomes and heard.refused(FIRST) is not None)
    lab.call(1, "b", 1, Kind.GATHER)
    lab.call(2, "c", 0, Kind.GATHER)
    lab.clock.run(lambda: len(lab.outcomes) == 5)
    refused = "ResourceExhaustionError"
    assert lab.errors() == {
        (0, 0): refused,
        (0, 1): refused,
        (1, 0): "",
        (1, 1): "",
        (2, 0): refused,
    }


def test_who_is_yet_to_come_hears_why_others_were_refused_and_not_that_they_are_gone(
    make: Make,
) -> None:
    """It waits for the manager, whose roster comes before what their plane says."""
    lab = apart(make)
    full(lab.net["a"])
    lab.call(0, "a", kind=Kind.BARRIER)
    lab.until((0, 0))
    lab.tell("ab", finished=[0])
    lab.run(5.0)
    assert (1, 0, 0) not in lab.outcomes
    lab.link()
    lab.until((1, 0))
    assert lab.error(1) == lab.error(0)
    assert lab.error(1).startswith("ResourceExhaustionError: ")


def test_who_is_yet_to_come_to_a_call_in_vain_need_not_wait_for_the_manager(make: Make) -> None:
    lab = apart(make)
    lab.link()
    lab.tell("ab", finished=[0])
    lab.until((1, 0))
    assert "t.0 on a (it has finished without that call)" in lab.error(1)


def test_who_is_yet_to_come_waits_for_who_came_and_has_finished_since(make: Make) -> None:
    """As its own wait was over before."""
    lab = apart(make)
    ask = lab.call(0, "a", kind=Kind.BARRIER)
    lab.net["a"].end(ask.at, ask, counts=True)
    lab.tell("ab", finished=[0])
    lab.link()
    lab.run(5.0)
    assert (1, 0, 0) not in lab.outcomes
    (at,) = lab.net["b"].unsettled
    lab.net["b"].desk.settled(at)
    lab.until((1, 0))
    assert lab.error(1) == ""


def apart(make: Make) -> Lab:
    """The second of two members waits until the manager has what it wrote; their nodes do not reach
    each other."""
    lab = make("a", "b")
    lab.run(1.0)
    lab.cut("a", "b")
    lab.run(1.0)
    lab.tell("ab")
    lab.call(1, "b", kind=Kind.BARRIER, settles=True)
    return lab


def test_a_value_that_a_node_takes_no_more_is_refused_to_all(make: Make) -> None:
    """It never came to the plane; who waits for it hears why."""
    lab = make("a", "b")
    lab.tell("ab", (0, 0))
    lab.call(0, "a", refusal="no room here")
    lab.call(1, "b")
    lab.clock.run(lambda: len(lab.outcomes) == 2)
    assert all("no room here" in answer[2] for answer in lab.outcomes.values())


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_node_without_room_for_what_is_to_come_to_it_refuses_the_call_to_all(
    make: Make, goes_on: bool
) -> None:
    """It has announced its own value by then, and nobody is served before all have room."""
    for seed in range(30):
        lab = make("a", "b", "c", seed=seed)
        lab.tell("abc")
        lab.call(1, "b", size=4 * INLINE, goes_on=goes_on)
        full(lab.net["b"])
        for rank, node in (0, "a"), (2, "c"):
            lab.call(rank, node, size=4 * INLINE, goes_on=goes_on)
        lab.until((0, 0), (1, 0), (2, 0))
        assert set(lab.errors().values()) == {"ResourceExhaustionError"}
        emptied(lab.net["b"])


def test_what_a_node_with_little_memory_can_never_hear_is_refused_to_all_with_the_arithmetic(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be asked for again for ever."""
    monkeypatch.setattr(post, "PART", 150)
    lab = make("a", "b", "c")
    lab.net["b"].pool._small.most = 1600
    lab.tell("aaaaaabc")
    lab.call(7, "c", size=INLINE)
    for rank in range(6):
        lab.call(rank, "a", size=INLINE)
    lab.until(*((rank, 0) for rank in (*range(6), 7)))
    lab.call(6, "b", size=INLINE)
    lab.until((6, 0))
    assert set(lab.errors().values()) == {"ResourceExhaustionError"}
    assert all("value_memory_mb" in lab.error(rank) for rank in range(8))


def straggler(make: Make, kind: Kind) -> Lab:
    """Of two members the second one waits for what comes of the call, or what the first gave."""
    for seed in range(100):
        lab = make("a", "b", seed=seed)
        lab.tell("ab")
        for rank, node in enumerate("ab"):
            lab.call(rank, node, 0, kind, LARGE, root=int(kind is Kind.GATHER))
        lab.until_any({(0, 0)}, {(1, 0)})
        if (1, 0, 0) not in lab.outcomes:
            return lab
    raise AssertionError("it waited in none")


def test_what_finished_instances_gave_and_a_plane_let_go_of_is_said_to_be_kept_no_longer(
    make: Make,
) -> None:
    """Also of a call that was begun anew since, and failed there, as a node was lost."""
    lab = make("a", "b", "c")
    lab.tell("abc")
    for rank, node in enumerate("abc"):
        lab.call(rank, node, kind=Kind.REDUCE_SCATTER)
    lab.until((0, 0), (1, 0), (2, 0))
    lab.restart_at_once("c")
    lab.introduce("ac", to="ac")
    calls = lab.net["a"].desk.calls
    for attempt in (1, 2):
        lab.tell("aba", (0, 0, attempt), finished=[0, 1], to="ac", stays=(0, 0, 1))
        lab.call(2, "a", attempt, Kind.REDUCE_SCATTER)
        lab.until((2, attempt))
        lab.clock.run(lambda: not calls.open)
        calls.let_go_oldest(attrgetter("memory"))
    assert "waits for t.1 on b (its node was lost) in vain" in lab.error(2, 1)
    what = "PeerLost: What instances gave to collective 0 of 't' is kept no longer on a, for want"
    assert lab.error(2, 2).startswith(what)


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_what_two_planes_had_left_to_each_other_outlives_both(make: Make, order: str) -> None:
    """One after the other: who is left writes it once it hears of the first."""
    lab = make("a", "b")
    lab.tell("ab")
    for number in (0, 1):
        for rank, node in enumerate("ab"):
            lab.call(rank, node, number=number)
        lab.until((0, 0, number), (1, 0, number))
    lab.net["a"].end(Instance(SWARM, "t", 0, 0, 0), counts=True)
    assert len(lab.net["a"].disk.kept[0].items) == 1, "call 0 is left to b"
    lab.tell("ab", finished=[0])
    for attempt, node in enumerate(order, 1):
        lab.restart_at_once(node)
        lab.tell("ab", (0, attempt), finished=[0])
        lab.run(2.0)
    lab.call(1, "b", attempt=2)
    lab.until((1, 2))
    assert lab.got(1, 2) == lab.got(1)
