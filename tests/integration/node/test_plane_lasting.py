"""What others need of the collectives of an attempt that has finished outlives its plane."""

from __future__ import annotations

import logging
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manta.light.errors import CollectiveError, PeerLost, Timeout
from manta.node.plane import value_files
from manta.testing import wait_until
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


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_two_planes_had_left_to_each_other_outlives_both(order: tuple[int, int]) -> None:
    """One after the other: who is left writes it once it hears of the first."""
    with members([0, 1]) as them:
        before = them.run(lambda world: [world.all_gather([world.rank, n]) for n in range(3)])
        them.finish(0)
        for attempt, node in enumerate(order, 1):
            size = size_of_spools(them, 1 - node)
            them.restart(node)
            them.again(1, attempt)
            if attempt == 1:
                wait_until(partial(have_grown, them, 1 - node, size))
        again = them.begin(1, lambda world: [world.all_gather(9) for _ in range(3)])
        assert again.result(20) == before[1]


def size_of_spools(them: Members, node: int) -> int:
    return sum(path.stat().st_size for path in spools_of(them, node))


def have_grown(them: Members, node: int, size: int) -> bool:
    return size_of_spools(them, node) > size


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


class SlowDisk:
    """Values that are read from it are not there before `may_go`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_asked, self.may_go = threading.Event(), threading.Event()
        self._read = value_files.read
        monkeypatch.setattr(value_files, "read", self.read)

    def read(self, path: str, size: int, into: memoryview, at: int) -> None:
        self.is_asked.set()
        assert self.may_go.wait(20)
        self._read(path, size, into, at)


def test_a_slow_disk_holds_up_the_calls_that_it_has_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with members([0, 0, 1]) as them:
        before = them.run(lambda world: world.all_reduce(fresh(200_000, world.rank)))
        them.finish(0)
        disk = SlowDisk(monkeypatch)
        them.restart(0, 1)
        them.again(1, 1)
        them.again(2, 1)
        try:
            again = them.begin(1, lambda world: world.all_reduce(fresh(200_000, 7)))
            assert disk.is_asked.wait(20)
            late = them.begin(2, lambda world: world.all_reduce(fresh(200_000, 8)))
            letter = them.planes.nodes[0].attempt(them.planes.at(0, attempt=1))
            letter.call("send_letter", to="id-1", tag="t", value=b"small", timeout=20.0)
            heard = letter.call("receive_letter", source="id-1", tag="t", number=0, timeout=20.0)
            assert heard == b"small"
            letter.close()
            assert not again.done()
            assert not late.done()
        finally:
            disk.may_go.set()
        same([again.result(40), late.result(40)], before[1:])


def test_who_waits_for_a_slow_disk_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with members([0, 0]) as them:
        before = them.run(lambda world: world.all_gather(bytes(100_000) + bytes([world.rank])))
        them.finish(0)
        disk = SlowDisk(monkeypatch)
        them.restart(0)
        them.again(1, 1)
        try:
            error = them.begin(1, lambda world: world.all_gather(b"", timeout=0.2)).exception(20)
            assert isinstance(error, Timeout)
            assert "until its node has read from disk what was kept of it" in str(error)
        finally:
            disk.may_go.set()
        them.again(1, 2)
        assert them.begin(1, lambda world: world.all_gather(b"")).result(20) == before[1]


def test_what_is_read_when_its_iteration_is_over_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with members([0, 0]) as them:
        them.run(lambda world: world.all_gather(bytes(100_000) + bytes([world.rank])))
        them.finish(0)
        disk = SlowDisk(monkeypatch)
        them.restart(0)
        them.again(1, 1)
        node = them.planes.nodes[0]
        try:
            late = them.begin(1, lambda world: world.all_gather(b""))
            assert disk.is_asked.wait(20)
            them.planes.enroll([0, 0], iteration=1)
            assert "was ended" in str(late.exception(20))
        finally:
            disk.may_go.set()
        node.settled()
        pool = node.plane._desks._pool
        assert not any(block.holds for block in node.run(lambda: list(pool._blocks.values())))
