"""Barriers of instances that have written: each comes to it once the manager has applied that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from manta.node.plane.requests import CallCollective
from manta.protocol.base import Instance
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.protocol.states import AttemptState
from manta.transports.collectives.calls import Kind
from tests.simulation.collective_planes import EPOCH, Asked, Plane
from tests.simulation.network import SWARM, Clock

Answer = tuple[Any, ...]
DONE: Answer = ([], {}, "")


class Two:
    """Nodes with one instance each, linked."""

    def __init__(self) -> None:
        self.clock, net = Clock(1), dict[str, Plane]()
        self.a, self.b = (Plane(self.clock, name, net) for name in ("a", "b"))
        for plane in (self.a, self.b):
            plane.introduced(list(net))
        self.a.dial("b")
        self.told()
        self.answers: dict[Instance, list[Answer]] = {}

    def told(self, given_up: str = "", attempts: Sequence[int] = (0, 0), **states: Any) -> None:
        """`given_up` says why of the second."""
        instances = tuple(
            RosterInstance(
                rank,
                "ab"[rank],
                "ab"[rank],
                attempts[rank],
                states.get("ab"[rank], AttemptState.RUNNING),
                given_up if rank else "",
            )
            for rank in (0, 1)
        )
        task = RosterTask("t", "RUNNING", 2, instances=instances)
        for plane in (self.a, self.b):
            plane.told(Roster(EPOCH, 0, {"t": task}, {}))

    def call(
        self,
        rank: int,
        *,
        settles: bool,
        attempt: int = 0,
        kind: Kind = Kind.BARRIER,
        timeout: float = 60.0,
    ) -> list[Answer]:
        """What it is answered, once it is."""
        at = Instance(SWARM, "t", rank, 0, attempt)
        value = b"" if kind is Kind.BARRIER else b"value"
        body = CallCollective(
            n=1,
            number=0,
            kind=kind,
            words=kind.value,
            timeout=timeout,
            settles=settles,
            sizes=(len(value),) if value else (),
        )
        answers = self.answers.setdefault(at, [])
        (self.a, self.b)[rank].ask(Asked(at, body, value, lambda *told: answers.append(told)))
        return answers

    def settled(self) -> None:
        """The manager has applied what those wrote of whom that was asked for."""
        for plane in (self.a, self.b):
            asked, plane.unsettled = plane.unsettled, []
            for at in asked:
                plane.desk.settled(at)

    def run(self, seconds: float) -> None:
        until = self.clock.now + seconds
        self.clock.after(seconds, lambda: None)
        self.clock.run(lambda: self.clock.now >= until)


@pytest.fixture
def two() -> Two:
    return Two()


def test_nobody_comes_out_before_the_manager_has_what_one_wrote_before(two: Two) -> None:
    mine, theirs = two.call(0, settles=True), two.call(1, settles=False)
    two.run(20.0)
    assert (mine, theirs) == ([], [])
    assert [at.index for at in two.a.unsettled] == [0]
    two.settled()
    two.clock.run(lambda: bool(mine and theirs))
    assert (mine, theirs) == ([DONE], [DONE])


def test_who_has_written_nothing_asks_for_nothing(two: Two) -> None:
    mine, theirs = two.call(0, settles=False), two.call(1, settles=False)
    two.clock.run(lambda: bool(mine and theirs))
    assert not two.a.unsettled
    assert not two.b.unsettled


def test_its_time_holds_while_the_manager_is_away(two: Two) -> None:
    mine = two.call(0, settles=True, timeout=5.0)
    two.clock.run(lambda: bool(mine))
    assert mine[0][2] == (
        "Timeout: Waited 5 s in vain: barrier waits until the manager has taken what t.0 wrote "
        "before it."
    )
    two.settled()  # too late
    assert len(mine) == 1


def test_one_after_another_that_was_in_vain_waits_for_what_was_written_until_it(two: Two) -> None:
    first = two.call(0, settles=True, timeout=5.0)
    two.clock.run(lambda: bool(first))
    mine, theirs = two.call(0, settles=True), two.call(1, settles=False)
    assert mine is first
    two.settled()  # of what was written until the first one
    two.run(20.0)
    assert (len(mine), theirs) == (1, [])
    two.settled()
    two.clock.run(lambda: len(mine) == 2 and bool(theirs))
    assert (mine[1:], theirs) == ([DONE], [DONE])


@pytest.mark.parametrize("how", ["given up", "finished"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_peer_that_is_lost_ends_the_wait(two: Two, how: str, when: str) -> None:
    def lost() -> None:
        if how == "given up":
            two.told("its node was lost", b=AttemptState.INTERRUPTED)
        else:
            two.told(b=AttemptState.FINISHED)

    if when == "before":
        lost()
    mine = two.call(0, settles=True)
    two.run(5.0)
    if when == "meanwhile":
        assert mine == []
        lost()
        two.clock.run(lambda: bool(mine))  # the other's plane is asked whether it came
    why = "its node was lost" if how == "given up" else "it has finished without that call"
    assert mine[0][2].startswith("PeerLost: barrier waits for t.1 ")
    assert why in mine[0][2]


def test_who_had_come_before_it_failed_is_not_waited_for_in_vain(two: Two) -> None:
    mine, _ = two.call(0, settles=True), two.call(1, settles=False)
    two.run(5.0)
    two.told("it has failed", b=AttemptState.FAILED)
    two.run(5.0)
    assert mine == []
    two.settled()
    two.clock.run(lambda: bool(mine))
    assert mine == [DONE]


def test_who_makes_another_call_hears_of_it_and_the_other_at_once(two: Two) -> None:
    mine, theirs = two.call(0, settles=True), two.call(1, settles=False, kind=Kind.ALL_GATHER)
    two.run(5.0)
    two.settled()
    two.clock.run(lambda: bool(mine and theirs))
    for told in (*mine, *theirs):
        assert told[2].startswith("CollectiveError: ")


def test_a_next_attempt_is_given_what_came_of_it_though_the_other_has_finished(two: Two) -> None:
    first, theirs = two.call(0, settles=False), two.call(1, settles=False)
    two.clock.run(lambda: bool(first and theirs))
    two.told(attempts=(1, 0), b=AttemptState.FINISHED)
    again = two.call(0, settles=True, attempt=1)
    two.run(5.0)
    assert again == []
    two.settled()
    two.clock.run(lambda: bool(again))
    assert again == [DONE]
