"""What a message costs a plane does not grow with members, calls or waits.

Steps of the interpreter are counted, not time: those of two planes together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from manta.node.plane.collectives import desk, early
from manta.node.plane.requests import CallCollective
from manta.protocol.base import Instance
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.protocol.states import AttemptState
from manta.transports.collectives.calls import Kind
from tests.simulation import collective_planes
from tests.simulation.collective_planes import EPOCH, Asked, Plane
from tests.simulation.network import SWARM, Clock
from tests.unit.transports.test_collective_costs import steps

FEW, MANY = 40, 320


class Pair:
    """Two planes, `a` with rank 0 of a task and `b` with all others."""

    def __init__(self, size: int, tasks: int = 1) -> None:
        self.clock = Clock(1)
        self.net: dict[str, Plane] = {}
        self.planes = [Plane(self.clock, name, self.net) for name in ("a", "b")]
        self.answers: list[str] = []
        for plane in self.planes:
            plane.introduced(["a", "b"])
        self.size = size
        self.tasks = [f"t{at}" for at in range(tasks)]
        self.net["a"].dial("b")

    def on(self, rank: int) -> str:
        return "b" if rank else "a"

    def roster(self, era: int = 0) -> Roster:
        instances = tuple(
            RosterInstance(rank, self.on(rank), self.on(rank), 0, AttemptState.RUNNING)
            for rank in range(self.size)
        )
        tasks = {
            one: RosterTask(one, "RUNNING", self.size, instances=instances) for one in self.tasks
        }
        return Roster(EPOCH, era, tasks, {})

    def enroll(self, *names: str) -> None:
        for name in names or ("a", "b"):
            self.net[name].told(self.roster())

    def call(self, rank: int, kind: Kind, number: int = 0, task: str = "t0") -> None:
        sizes = () if kind is Kind.BARRIER else (8,)
        body = CallCollective(
            n=1, number=number, kind=kind, words=f"{kind.value}()", timeout=1e6, sizes=sizes
        )
        at = Instance(SWARM, task, rank, 0, 0)
        asked = Asked(at, body, b"x" * sum(sizes), self._answered)
        self.net[self.on(rank)].ask(asked)

    def _answered(self, found: Any, lost: Any, error: str) -> None:
        self.answers.append(error)

    def until(self, condition: Callable[[], bool]) -> None:
        self.clock.run(condition)


def members_of_a_barrier(count: int) -> None:
    pair = Pair(count)
    pair.enroll()
    for rank in range(count):
        pair.call(rank, Kind.BARRIER)
    pair.until(lambda: len(pair.answers) == count)
    assert not any(pair.answers)


def members_that_give(count: int) -> None:
    pair = Pair(count)
    pair.enroll()
    for rank in reversed(range(count)):
        pair.call(rank, Kind.GATHER)
    pair.until(lambda: len(pair.answers) == count)
    assert not any(pair.answers)


def calls_that_are_ahead(count: int) -> None:
    pair = Pair(2)
    pair.enroll()
    for number in range(count):
        pair.call(1, Kind.GATHER, number)
    for number in range(count):
        pair.call(0, Kind.GATHER, number)
    pair.until(lambda: len(pair.answers) == 2 * count)
    assert not any(pair.answers)


def tasks_that_wait(count: int) -> None:
    """One call of each of many tasks goes on at a time."""
    pair = Pair(2, count)
    pair.enroll()
    for rank in (0, 1):
        for task in pair.tasks:
            pair.call(rank, Kind.BARRIER, task=task)
    pair.until(lambda: len(pair.answers) == 2 * count)
    assert not any(pair.answers)


def messages_that_wait_for_a_roster(count: int) -> None:
    pair = Pair(2)
    pair.enroll("b")
    for number in range(count):
        pair.call(1, Kind.GATHER, number)
    pair.until(lambda: len(pair.net["a"].desk.peers._early._by_call) == count)
    pair.enroll("a")
    for number in range(count):
        pair.call(0, Kind.GATHER, number)
    pair.until(lambda: len(pair.answers) == 2 * count)
    assert not any(pair.answers)


@pytest.mark.parametrize(
    "work",
    [
        members_of_a_barrier,
        members_that_give,
        calls_that_are_ahead,
        tasks_that_wait,
        messages_that_wait_for_a_roster,
    ],
)
def test_what_a_call_costs_planes_does_not_grow_with_how_many_there_are(
    work: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "AHEAD", MANY)
    monkeypatch.setattr(early, "OF_A_NODE", 1 << 30)
    monkeypatch.setattr(collective_planes, "LINK", 1 << 30)
    few, many = (steps(lambda count=count: work(count)) / count for count in (FEW, MANY))  # type: ignore[misc]
    assert many < 1.5 * few, f"{few:.0f} steps for each of {FEW}, {many:.0f} for each of {MANY}"
