"""What comes of collectives: kept until the iteration ends, bounded, and nobody else's."""

from __future__ import annotations

import mmap
import os
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manta.light.errors import (
    CollectiveError,
    PeerLost,
    RequestFailed,
    ResourceExhaustionError,
    Timeout,
)
from manta.light.reduction import reduce
from manta.node.plane.collectives import desk, kept, memory, messages, placing
from manta.node.plane.collectives.pieces import COST
from manta.node.plane.collectives.post import Heard
from manta.node.plane.collectives.spare import Footprint
from manta.transports.collectives.messages import Wanted
from manta.transports.errors import BulkError
from tests.integration.node.test_plane_collectives import fresh, members, same, until
from tests.support.planes import SWARM

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("on", [[0, 1], [0, 0, 1], [0, 1, 2]], ids=str)
def test_what_finds_no_room_in_memory_goes_on_from_disk(on: list[int]) -> None:
    size = len(on)
    data = [fresh(1_000_000, rank) for rank in range(size)]
    with members(on, most=3 << 20) as them:

        def work(world: Any) -> list[Any]:
            rank = world.rank
            return [
                world.all_reduce(data[rank]),
                world.reduce_scatter(data[rank], op="mean"),
                world.all_gather(data[rank].tobytes()),
                world.gather(data[rank]),
                world.scatter(data if rank == 0 else None),
            ]

        total = reduce(list(enumerate(data)), "sum")
        parts = np.array_split(reduce(list(enumerate(data)), "mean"), size)
        for rank, got in enumerate(them.run(work)):
            if isinstance(got, BaseException):
                raise got
            same(got[0], total)
            same(got[1], parts[rank])
            assert got[2] == [one.tobytes() for one in data]
            same(got[3], data if rank == 0 else None)
            same(got[4], data[rank])
        for node in them.planes.nodes:  # small values have room of their own
            assert node.run(lambda node=node: node.plane._parcels.memory.used) <= 4 << 20
        them.planes.enroll(on, iteration=1)
        for node in them.planes.nodes:
            until(lambda node=node: node.run(lambda: not _kept_on_disk(node)))


def _kept_on_disk(node: Any) -> int:
    """Bytes, but for what may be used again, or is mapped by a task alone."""
    plane = node.plane
    pool = plane._desks._pool
    unused = [*pool._idle, *pool._lent.values()]
    return plane._parcels._room.disk.used - sum(block.size for block in unused if block.is_file)


def test_a_next_attempt_is_given_all_outcomes_however_many_and_large_there_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "LEAST_SMALL", 2 << 20)
    with members([0, 0, 1], most=6 << 20) as them:

        def work(world: Any) -> list[Any]:
            found = []
            for at in range(25):
                world.barrier()
                found.append(float(world.all_reduce(np.full(100_000, float(at)))[0]))
                found.append(world.all_gather(bytes([world.rank]) * 40_000)[1][0])
            return found

        wanted = [x for at in range(25) for x in (3.0 * at, 1)]
        assert them.run(work) == [wanted] * 3
        node = them.planes.nodes[0]
        assert node.run(lambda: node.plane._parcels.memory.used) <= 8 << 20
        them.all[0].die()
        them.again(0, 1)
        assert them.begin(0, work).result(40) == wanted


def test_more_calls_than_there_is_room_for_are_refused_and_none_before_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "LEAST_SMALL", 40 * COST)
    told: list[str] = []
    with members([0, 1], most=40 * COST, disk=0) as them:

        def work(world: Any) -> int:
            for at in range(100):
                try:
                    world.barrier()
                except ResourceExhaustionError as error:
                    told.append(str(error))
                    return at
            return 100

        done = them.run(work)
        assert done[0] == done[1] <= 40
        assert done[0] > 20
        assert all("has no room for a collective" in sentence for sentence in told)
        them.all[0].die()
        them.again(0, 1)
        assert them.begin(0, work).result(20) == done[0]


def test_after_many_that_failed_no_more_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "FAILED", 3)
    with members([0, 1]) as them:
        for _ in range(3):
            errors = them.run(lambda w: w.barrier() if w.rank else w.all_gather(1))
            assert all(isinstance(error, CollectiveError) for error in errors)
        error = them.begin(0, lambda world: world.barrier()).exception(20)
        assert isinstance(error, ResourceExhaustionError)
        assert "Too many collectives of 'worker' have failed" in str(error)


def test_of_calls_that_are_over_what_came_of_them_counts_and_what_others_may_need_again() -> None:
    with members([0, 1]) as them:
        for _ in range(10):
            assert len(them.run(lambda world: world.all_gather(bytes(50_000)))) == 2
            them.run(lambda world: world.gather(bytes(50_000)))
        root, other = them.planes.nodes

        def counted(node: Any) -> int:
            def size() -> int:
                calls = node.plane._desks._desks[SWARM].calls
                return -1 if calls.open else node.plane._parcels.memory.used

            until(lambda: node.run(size) >= 0)
            return node.run(size)

        assert 10 * 4 * 50_000 < counted(root) < 10 * 4 * 50_000 + 20 * 3 * COST
        assert 10 * 3 * 50_000 < counted(other) < 10 * 3 * 50_000 + 20 * 3 * COST
        calls = other.plane._desks._desks[SWARM].calls
        while other.run(calls.let_go_oldest, attrgetter("memory")):
            pass
        assert other.run(lambda: calls.given) == Footprint()
        assert 10 * 2 * 50_000 < counted(other) < 10 * 2 * 50_000 + 20 * 3 * COST
        them.planes.enroll(them.on, iteration=1)
        for node in (root, other):
            until(lambda node=node: node.run(lambda: node.plane._parcels.memory.used) == 0)


@pytest.mark.parametrize("kind", ["gather", "scatter"])
def test_nobody_is_more_than_so_many_calls_ahead_of_who_has_not_come(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "AHEAD", 10)
    with members([0, 1]) as them:
        ahead, behind = (1, 0) if kind == "gather" else (0, 1)

        def work(world: Any) -> int:
            for at in range(50):
                if kind == "gather":
                    world.gather(at)
                else:
                    world.scatter([at, at] if world.rank == 0 else None)
            return 50

        first = them.begin(ahead, work)
        node = them.planes.nodes[ahead]

        def calls() -> Any:
            return node.plane._desks._desks[SWARM]

        until(lambda: node.run(lambda: calls()._waits.parked()))
        assert len(node.run(lambda: calls().calls.open)) == 11
        assert not first.done()
        assert them.begin(behind, work).result(20) == first.result(20) == 50


def test_what_is_far_ahead_is_refused_to_who_says_it() -> None:
    with members([0, 1]) as them:
        assert them.run(lambda world: world.all_reduce(1)) == [2, 2]
        one, two = them.planes.nodes

        def hear(number: int) -> bool:
            desk_ = one.plane._desks._desks[SWARM]
            call = messages.CallName(0, "worker", number)
            assert desk_.roster is not None
            places = placing.places(desk_.roster.tasks["worker"])
            said = Heard(call, places, Wanted((), ()), 0)
            assert desk_._hearing.take(two.id, said)
            return desk_.calls.get(call) is not None

        assert not one.run(hear, 1 + kept.FAR + 1)
        assert not one.run(hear, 10**9)
        assert them.run(lambda world: world.all_reduce(1)) == [2, 2]


def test_arrays_that_leave_out_some_of_a_value_are_refused() -> None:
    with members([0]) as them:
        fields = {"kind": "all_reduce", "words": "all_reduce(op='sum')", "timeout": 5.0}
        value = {"sizes": [2000], "value": bytes(2000), "op": "sum"}
        for number, leaves in enumerate(([], [[0, 1000, "uint8", "v", "", ""]])):
            with pytest.raises(RequestFailed, match="leave out some of its 2000 bytes"):
                them.all[0].call("call_collective", number=number, leaves=leaves, **fields, **value)


def test_a_value_stays_while_others_need_it_whoever_gave_it_waits_no_more() -> None:
    data = [fresh(100_000, rank).tobytes() for rank in range(3)]
    with members([0, 0, 1]) as them:
        error = them.begin(0, lambda w: w.all_gather(data[0], timeout=0.2)).exception(20)
        assert isinstance(error, Timeout)
        others = [them.begin(rank, lambda w: w.all_gather(data[w.rank])) for rank in (1, 2)]
        assert [future.result(20) for future in others] == [data] * 2
        them.all[0].die()
        them.again(0, 1)
        assert them.begin(0, lambda w: w.all_gather(b"other")).result(20) == data


def test_what_is_left_of_values_for_many_stays_for_the_next_attempt_of_who_gave_them() -> None:
    data = [fresh(100_000, rank).tobytes() for rank in range(3)]
    with members([0, 1, 2]) as them:

        def work(world: Any) -> Any:
            return world.scatter(data if world.rank == 0 else None)

        assert them.run(work) == data
        node = them.planes.nodes[0]
        until(lambda: node.run(lambda: not node.plane._desks._desks[SWARM].calls.open))
        them.all[0].die()
        them.again(0, 1)
        assert them.begin(0, work).result(20) == data[0]


def test_more_values_than_an_answer_has_descriptors_for_are_brought_together() -> None:
    on = [0] * 40 + [1] * 26
    with members(on) as them:

        def work(world: Any) -> bool:
            got = world.all_gather(bytes([world.rank]) * 70_000)
            return got == [bytes([rank]) * 70_000 for rank in range(66)]

        assert them.run(work) == [True] * 66
        them.all[0].die()
        them.again(0, 1)
        assert them.begin(0, work).result(20)


def test_nodes_on_one_machine_pass_memory_and_take_over_what_nobody_can_change(
    tmp_path: Path,
) -> None:
    data = [fresh(1_000_000, rank) for rank in range(3)]
    with members([0, 1, 2], local=tmp_path) as them:
        them.run(lambda world: world.barrier())
        nodes = them.planes.nodes
        for one in nodes:
            keys = [other.peer.key for other in nodes if other is not one]
            until(
                lambda one=one, keys=keys: one.run(
                    lambda: (
                        all(one.plane.paths.is_local(key) for key in keys)
                        and all(one.bulk.peer(key).connected for key in keys)
                    )
                )
            )
        wanted = [one.tobytes() for one in data]
        assert them.run(lambda w: w.all_gather(data[w.rank].tobytes())) == [wanted] * 3
        total = reduce(list(enumerate(data)), "sum")
        for got in them.run(lambda w: w.all_reduce(data[w.rank])):
            same(got, total)

        def shared(node: Any) -> set[tuple[int, int]]:
            """The memory that its values lie in, as the system names it."""
            desk_ = node.plane._desks._desks[SWARM]
            call = desk_.calls.get(messages.CallName(0, "worker", 1))
            pieces = [call.meeting.piece(one) for one in call.meeting._kept()]
            fds = [desk_._delivery._fd_of(one) for one in pieces]
            return {(os.fstat(fd).st_dev, os.fstat(fd).st_ino) for fd in fds}

        assert len({place for node in nodes for place in node.run(shared, node)}) == 3


def test_what_can_t_be_sent_is_told_to_who_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, transfer: bytes, parts: Any, **_: Any) -> None:
        raise BulkError("too many transfers wait for this peer already")

    with members([0, 1]) as them:
        assert them.run(lambda world: world.all_reduce(1)) == [2, 2]
        node = them.planes.nodes[1]
        peer = node.bulk.peer(them.planes.nodes[0].peer.key)
        monkeypatch.setattr(peer, "send", refuse.__get__(peer))
        futures = [them.begin(rank, lambda w: w.gather(bytes(100_000))) for rank in (0, 1)]
        error = futures[0].exception(20)
        assert isinstance(error, RequestFailed)
        assert "What node-2 was to send to node-1 for it did not arrive" in str(error)
        assert futures[1].result(20) is None


def test_a_node_that_can_t_map_a_value_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(24, "Too many open files")

    with members([0, 0]) as them:
        monkeypatch.setattr(mmap, "mmap", refuse)
        error = them.begin(0, lambda w: w.all_gather(bytes(100_000))).exception(20)
        monkeypatch.undo()
        assert isinstance(error, ResourceExhaustionError)
        assert "can't map a value of" in str(error)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_what_was_given_is_given_again_to_a_root_that_forgot_it(where: str) -> None:
    with members([0, 1, 1]) as them:

        def work(world: Any) -> Any:
            return world.gather(bytes([world.rank]) * 50_000)

        wanted = them.run(work)[0]
        assert wanted == [bytes([rank]) * 50_000 for rank in range(3)]
        giver = them.planes.nodes[1]
        desk_ = giver.plane._desks._desks[SWARM]
        until(lambda: giver.run(lambda: not desk_.calls.open))
        if where == "disk":
            assert giver.run(desk_.calls.spill_oldest)
        them.planes.restart(0)
        them.again(0, 1)
        assert them.begin(0, work).result(20) == wanted
        assert them.run(lambda world: world.all_reduce(1)) == [3] * 3


@pytest.mark.parametrize("nbytes", [50_000, 500_000])
def test_what_was_given_and_let_go_of_for_want_of_room_is_not_waited_for(nbytes: int) -> None:
    with members([0, 1]) as them:

        def work(world: Any) -> Any:
            return world.gather(bytes([world.rank]) * nbytes)

        assert len(them.run(work)[0]) == 2
        giver = them.planes.nodes[1]
        desk_ = giver.plane._desks._desks[SWARM]
        until(lambda: giver.run(lambda: not desk_.calls.open))
        before = giver.run(lambda: giver.plane._parcels.memory.used)
        assert nbytes <= giver.run(lambda: desk_.calls.given.memory) < 2 * nbytes
        assert giver.run(desk_.calls.let_go_oldest, attrgetter("memory"))
        assert giver.run(lambda: giver.plane._parcels.memory.used) <= before - nbytes
        assert not giver.run(desk_.calls.let_go_oldest, attrgetter("memory"))
        them.planes.restart(0)
        them.again(0, 1)
        error = them.begin(0, work).exception(20)
        assert isinstance(error, PeerLost)
        assert "is kept no longer on" in str(error)


def test_room_is_made_of_what_was_given_to_calls_that_are_over() -> None:
    with members([0, 1], most=24 << 20, disk=0) as them:
        ones = np.ones(250_000)
        for _ in range(12):  # each keeps 2 MB of what was given on each node, and 1 MB more
            for got in them.run(lambda world: world.reduce_scatter(ones)):
                same(got, 2 * ones[:125_000])
