"""What others need of the collectives of an attempt that has finished outlives its plane."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manta.light.errors import CollectiveError, PeerLost
from tests.integration.node.test_plane_collectives import fresh, members, same, until_come
from tests.support.plane_collectives import Members

pytestmark = pytest.mark.timeout(120)

ALL_HERE = [0, 0, 0]


def values_of(them: Members, node: int = 0) -> list[Path]:
    """Files of values."""
    return sorted(them.planes.nodes[node].folder.glob("values/*"))


def spools_of(them: Members, node: int = 0) -> list[Path]:
    return sorted(them.planes.nodes[node].folder.glob("*.spool"))


@pytest.mark.parametrize("count", [10, 200_000, 2_000_000], ids=["small", "large", "spilled"])
def test_others_are_given_what_came_of_calls_before(count: int) -> None:
    data = [fresh(count, rank) for rank in range(3)]

    def work(world: Any, attempt: int = 0) -> list[Any]:
        world.barrier()
        mine = data[world.rank] + np.float32(attempt)  # which is of no use by then
        return [
            world.all_reduce(mine),
            world.all_gather(mine),
            world.gather(data[world.rank], root=1),
            world.reduce_scatter(data[world.rank]),
            world.scatter(data if world.rank == 0 else None),
        ]

    with members(ALL_HERE, most=16 << 20) as them:
        before = them.run(work)
        them.finish(0)
        them.restart(0)
        for rank in (1, 2):
            them.again(rank, 1)
        again = [them.begin(rank, partial(work, attempt=1)) for rank in (1, 2)]
        for rank, future in enumerate(again, 1):
            same(future.result(40), before[rank])
        assert bool(values_of(them)) is (count > 10)
        them.planes.enroll(ALL_HERE, iteration=1)
        them.planes.nodes[0].settled()
        assert not values_of(them)
        assert not spools_of(them)


def test_it_outlives_a_second_plane_as_well() -> None:
    with members(ALL_HERE) as them:
        before = them.run(lambda world: world.all_gather(bytes(100_000) + bytes([world.rank])))
        them.finish(0)
        for attempt in (1, 2):
            them.restart(0)
            them.again(1, attempt)
            them.again(2, attempt)
            again = them.begin(1, lambda world: world.all_gather(b""))
            assert again.result(20) == before[1]


@pytest.mark.parametrize("count", [10, 100_000], ids=["small", "large"])
@pytest.mark.parametrize("kind", ["gather", "scatter"])
@pytest.mark.parametrize("on", [ALL_HERE, [0, 1, 1], [0, 1, 2]], ids=str)
@pytest.mark.parametrize("waits", [False, True], ids=["before", "while"])
def test_what_was_given_before_others_come_is_there_when_they_do(
    on: list[int], kind: str, count: int, waits: bool
) -> None:
    """The plane begins anew `before` others come, or `while` they wait for one more."""
    data = [fresh(count, rank) for rank in range(3)]

    def work(world: Any) -> Any:
        if kind == "gather":
            return world.gather(data[world.rank], root=1)
        return world.scatter(data if world.rank == 0 else None)

    with members(on) as them:
        assert them.begin(0, work).result(20) is None or kind == "scatter"
        waiting = []
        if waits and kind == "gather" and on[1] != 0:
            waiting = [them.begin(1, work)]
            until_come(them, 1)
        them.finish(0)
        them.restart(0)
        for rank in (1, 2):
            if on[rank] == 0:
                them.again(rank, 1)
        futures = [*waiting, *(them.begin(rank, work) for rank in (1, 2)[len(waiting) :])]
        first, second = (future.result(40) for future in futures)
        same(first, data if kind == "gather" else data[1])
        same(second, None if kind == "gather" else data[2])


def test_what_came_of_the_last_call_outlives_all_planes() -> None:
    with members([0, 0, 1]) as them:
        assert them.run(lambda world: world.all_gather(world.rank)) == [[0, 1, 2]] * 3
        them.finish(0)
        them.restart(0, 1)
        them.again(1, 1)
        them.again(2, 1)
        again = [them.begin(rank, lambda world: world.all_gather(9)) for rank in (1, 2)]
        assert [one.result(20) for one in again] == [[0, 1, 2]] * 2


def test_calls_that_differ_differ_again() -> None:
    def work(world: Any) -> Any:
        return world.barrier() if world.rank else world.all_gather(1)

    with members(ALL_HERE) as them:
        before = them.run(work)
        assert all(isinstance(one, CollectiveError) for one in before)
        them.finish(0)
        them.restart(0)
        them.again(1, 1)
        error = them.begin(1, work).exception(20)
        assert isinstance(error, CollectiveError)
        assert str(error) == str(before[1])


def test_an_end_writes_only_what_no_other_plane_has() -> None:
    with members([0, 1]) as them:
        assert them.run(lambda world: [world.all_gather(world.rank) for _ in range(50)])
        them.finish(0)
        assert sum(path.stat().st_size for path in spools_of(them)) < 2_000
        them.finish(1)  # nobody is left who could ask
        assert not spools_of(them, 1)


def test_many_small_outcomes_are_one_file() -> None:
    def work(world: Any) -> list[Any]:
        return [world.all_gather(bytes(500) + bytes([n % 100])) for n in range(300)]

    with members([0, 0]) as them:
        before = them.run(work)
        them.finish(0)
        assert len(values_of(them)) == 1
        them.restart(0)
        them.again(1, 1)
        assert them.begin(1, work).result(40) == before[1]


def test_damage_costs_the_damaged_outcome_alone(caplog: pytest.LogCaptureFixture) -> None:
    def work(world: Any) -> list[Any]:
        got: list[Any] = []
        for number in range(3):
            try:
                got.append(world.all_gather(bytes([world.rank, number]) * 50_000))
            except PeerLost as lost:
                got.append(lost)
        return got

    with members([0, 0]) as them:
        before = them.run(work)
        them.finish(0)
        (file,) = values_of(them)
        file.chmod(0o600)
        with file.open("r+b") as damaged:
            damaged.seek(file.stat().st_size // 2)
            damaged.write(os.urandom(8))
        them.restart(0)
        them.again(1, 1)
        first, lost, third = them.begin(1, work).result(40)
        assert [first, third] == [before[1][0], before[1][2]]
        assert isinstance(lost, PeerLost)
        assert "checksum" in caplog.text


def test_where_the_disk_has_no_room_for_it_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    with members([0, 0], disk=1 << 20) as them:
        them.run(lambda world: world.all_reduce(fresh(400_000, world.rank)))
        them.finish(0)
        assert "is kept in memory alone" in caplog.text
        assert not values_of(them)
