"""What one swarm's tasks exchange leaves room on the node for those of others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from manta.light.errors import ResourceExhaustionError
from manta.node.plane.collectives import memory
from manta.node.plane.collectives.pieces import COST
from tests.support.plane_collectives import Member, Members
from tests.support.planes import Planes, planes

pytestmark = pytest.mark.timeout(120)

ARITHMETIC = "for this swarm, which may have"


@contextmanager
def two_swarms(most: int, disk: int) -> Iterator[tuple[Members, Members]]:
    """One with a task of four instances, and one of two, on the same four nodes."""
    with planes(4, most, disk=disk) as lab:
        swarms = [Members(lab, [0, 1, 2, 3]), Members(Planes(lab.nodes, "swarm-2"), [0, 1])]
        try:
            yield swarms[0], swarms[1]
        finally:
            for swarm in reversed(swarms):
                swarm.close()


def until_refused(call: Callable[[Any], object]) -> Callable[[Any], str]:
    def work(world: Any) -> str:
        for _ in range(1000):
            try:
                call(world)
            except ResourceExhaustionError as error:
                return str(error)
        raise AssertionError("it was never refused")

    return work


def refusal(swarm: Members, call: Callable[[Any], object]) -> str:
    """Of the first that is told; all attempts end then, and what came of their calls is kept."""
    futures = [swarm.begin(rank, until_refused(call)) for rank in range(len(swarm.all))]
    done, _ = wait(futures, 60, FIRST_COMPLETED)
    sentence: str = done.pop().result()
    for member in swarm.all:
        member.die()
    wait(futures, 20)
    return sentence


def letter(member: Member, to: str, value: bytes) -> None:
    member.end.call("send_letter", to=to, tag="x", value=value, timeout=20.0)


def receive(member: Member, source: str) -> bytes:
    value: bytes = member.end.call("receive_letter", source=source, tag="x", number=0, timeout=20.0)
    return value


CALLS: dict[str, Callable[[Any], object]] = {
    "all_gather": lambda world: world.all_gather(bytes(300_000)),
    "all_reduce": lambda world: world.all_reduce(np.ones(100_000)),
    "gather": lambda world: world.all_gather(len(world.gather(bytes(300_000)) or ())),
    "scatter": lambda world: world.all_gather(len(world.scatter([bytes(300_000)] * 4))),
}


@pytest.mark.parametrize("kind", CALLS)
def test_large_collectives_of_one_swarm_leave_room_for_letters_and_calls_of_another(
    kind: str,
) -> None:
    with two_swarms(16 << 20, 16 << 20) as (greedy, other):
        sentence = refusal(greedy, CALLS[kind])
        assert ARITHMETIC in sentence
        assert "fewer collectives in an iteration, or give the node more" in sentence
        value = os.urandom(1_000_000)
        letter(other.all[1], "id-1", value)
        assert receive(other.all[0], "id-2") == value
        letter(other.all[0], "id-2", value[:500_000])
        assert receive(other.all[1], "id-1") == value[:500_000]
        for _ in range(2):
            for got in other.run(lambda world: world.all_reduce(np.ones(20_000))):
                assert (got == 2).all()
        assert other.run(lambda world: world.all_gather(world.rank)) == [[0, 1]] * 2


def test_many_small_collectives_of_one_swarm_leave_room_for_those_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "LEAST_SMALL", 80 * COST)
    with two_swarms(80 * COST, 0) as (greedy, other):
        for sentence in greedy.run(until_refused(lambda world: world.barrier())):
            assert "has no room for a collective" in sentence
            assert ARITHMETIC in sentence
        assert other.run(lambda world: world.all_reduce(1)) == [2, 2]
