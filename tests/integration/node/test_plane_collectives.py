"""Collectives over planes with real links and bulk."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manta.light.errors import (
    CollectiveError,
    PeerLost,
    ResourceExhaustionError,
    Timeout,
)
from manta.light.reduction import reduce
from manta.node.peers.directory import DirectoryChanged
from manta.node.plane.collectives import messages
from manta.node.plane.envelope import pack
from manta.protocol.peers import Departed, Departure
from manta.transports.collectives.messages import Wanted
from tests.support.plane_collectives import Members
from tests.support.planes import MEMORY, SWARM, planes

pytestmark = pytest.mark.timeout(120)

SIZES = (0, 1, 64 * 1024, 1 << 20, 20_000_000)
PLACES = ([0], [0, 0, 0], [0, 1], [0, 1, 0, 1, 2], [0, 1, 2, 3, 4])


@contextmanager
def members(
    on: Sequence[int], most: int = MEMORY, disk: int = MEMORY, local: Path | None = None
) -> Iterator[Members]:
    with planes(max(on) + 1, most, disk=disk, local=local) as them:
        found = Members(them, on)
        try:
            yield found
        finally:
            found.close()


def until(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


def until_come(them: Members, rank: int) -> None:
    """To a call that goes on."""
    node = them.planes.nodes[them.on[rank]]

    def has_come() -> bool:
        desk = node.plane._desks._desks.get(SWARM)
        return desk is not None and any(rank in one.meeting.machine.come for one in desk.calls.open)

    until(lambda: node.run(has_come))


def fresh(count: int, seed: Any, dtype: str = "float32") -> Any:
    made = np.random.default_rng(seed).integers(-100, 100, count)
    return made.astype(dtype) if dtype[0] != "f" else (made / 8).astype(dtype)


def same(got: Any, wanted: Any) -> None:
    """To the bit, and of one type."""
    assert type(got) is type(wanted)
    if isinstance(wanted, dict):
        assert got.keys() == wanted.keys()
        for key in wanted:
            same(got[key], wanted[key])
    elif isinstance(wanted, list):
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            same(one, other)
    elif isinstance(wanted, np.ndarray):
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        assert got.tobytes() == wanted.tobytes()
    else:
        assert got == wanted


@pytest.mark.parametrize("on", PLACES, ids=str)
def test_every_kind_of_every_size_gives_what_it_promises(on: list[int]) -> None:
    size = len(on)
    with members(on) as them:
        for nbytes in SIZES:
            count = nbytes // 4
            data = [fresh(count, (rank, nbytes)) for rank in range(size)]
            texts = [np.random.default_rng(rank).bytes(nbytes) for rank in range(size)]

            def work(world: Any, data: Any = data, texts: Any = texts) -> list[Any]:
                rank = world.rank
                world.barrier()
                return [
                    world.all_reduce(data[rank]),
                    world.all_reduce(data[rank], op="mean"),
                    world.reduce_scatter(data[rank]),
                    world.all_gather(texts[rank]),
                    world.gather(texts[rank], root=world.size - 1),
                    world.scatter(texts if rank == 0 else None),
                ]

            total = reduce(list(enumerate(data)), "sum")
            parts = np.array_split(total, size)
            for rank, got in enumerate(them.run(work)):
                if isinstance(got, BaseException):
                    raise got
                same(got[0], total)
                same(got[1], reduce(list(enumerate(data)), "mean"))
                same(got[2], parts[rank])
                assert got[3] == texts
                assert got[4] == (texts if rank == size - 1 else None)
                assert got[5] == texts[rank]


@pytest.mark.parametrize("on", [[0, 1, 1], [0, 0]], ids=str)
def test_nests_and_dtypes_come_out_as_where_they_are_reduced_in_tasks(on: list[int]) -> None:
    def nest(rank: int) -> dict[str, Any]:
        return {
            "f2": fresh(9_001, rank, "float16"),
            "f4": fresh(12_345, rank).reshape(5, 2469),
            "f8": fresh(7_777, rank, "float64")[::-1],
            "i1": fresh(5_000, rank, "int8") // 8,
            "i8": [fresh(3_000, rank, "int64"), fresh(0, rank, "int64")],
            "c8": fresh(2_001, rank).astype("complex64") * 1j,
            "b": fresh(10_000, rank, "int8") > 0,
            "big": fresh(1_111, rank, ">i4"),
            "none": np.float32(rank),
            "n": [rank, rank / 3],
        }

    with members(on) as them:
        size = len(on)
        for op, leave, dtype in [
            ("sum", ("b",), None),
            ("mean", ("b", "i1", "i8", "big", "n"), None),
            ("max", ("c8",), None),
            ("prod", ("b", "i8", "big", "c8"), "float64"),
            ("sum", ("f2", "f4", "f8", "c8", "none"), "int64"),
        ]:
            values = [
                {key: value for key, value in nest(rank).items() if key not in leave}
                for rank in range(size)
            ]
            if dtype == "int64":
                for value in values:
                    value.pop("n")
            wanted = reduce(list(enumerate(values)), op, dtype)

            def work(world: Any, values: Any = values, op: str = op, dtype: Any = dtype) -> Any:
                return world.all_reduce(values[world.rank], op=op, dtype=dtype)

            for got in them.run(work):
                if isinstance(got, BaseException):
                    raise got
                same(got, wanted)


def test_what_does_not_fit_is_told_to_all_alike_and_what_was_rounded_too() -> None:
    with members([0, 1]) as them:

        def overflow(world: Any) -> Any:
            return world.all_reduce(np.full(100_000, 100, np.int8))

        for error in them.run(overflow):
            assert isinstance(error, CollectiveError)
            assert "value has the sum 200, which int8 can't hold" in str(error)

        def rounded(world: Any) -> Any:
            return world.all_reduce(np.full(100_000, world.rank, np.int32), op="mean")

        for warning in them.run(rounded):  # which is an error in tests
            assert isinstance(warning, RuntimeWarning)
            assert "mean of the integers in value has fractions" in str(warning)
        errors = them.run(lambda world: world.all_reduce(np.array(["a"] * 9_000)))
        assert [type(error) for error in errors] == [TypeError, CollectiveError]


@pytest.mark.parametrize("on", [[0, 1, 2], [0, 1, 1]], ids=str)
def test_other_forms_and_calls_are_told_to_all_at_once_who_then_go_on(on: list[int]) -> None:
    with members(on) as them:
        cases: list[tuple[Any, tuple[str, ...]]] = [
            (
                lambda w: w.all_reduce(np.ones(100_000 + (w.rank == 2))),
                ("is an array of shape (100000,)", "of rank 2 an array of shape (100001,)"),
            ),
            (
                lambda w: w.all_reduce(np.ones(100_000) if w.rank else 1.0),
                ("value of rank 0 is a number", "an array of shape (100000,)"),
            ),
            (
                lambda w: w.all_reduce(np.ones(50_000), op="max" if w.rank == 2 else "sum"),
                ("all_reduce(op='sum')", "all_reduce(op='max')", "worker.2"),
            ),
            (
                lambda w: w.barrier() if w.rank == 1 else w.all_gather(1),
                ("worker.1 called barrier", "called all_gather"),
            ),
            (
                lambda w: w.reduce_scatter([np.ones(9_000 + (w.rank == 1)) for _ in range(3)]),
                ("rank 1", "an array of shape (9001,)"),
            ),
        ]
        for work, words in cases:
            for error in them.run(work):
                assert isinstance(error, CollectiveError), error
                for word in words:
                    assert word in str(error)
        assert them.run(lambda world: world.all_reduce(1)) == [3, 3, 3]


def test_a_hundred_small_collectives_in_a_row() -> None:
    with members([0, 1, 1]) as them:

        def work(world: Any) -> int:
            total = 0
            for at in range(100):
                total += world.all_reduce(at + world.rank)
                if at % 10 == 0:
                    world.barrier()
            return total

        assert them.run(work) == [sum(3 * at + 3 for at in range(100))] * 3


def test_what_was_contributed_counts_though_the_task_is_gone_and_is_answered_alike_again() -> None:
    with members([0, 1]) as them:
        data = [fresh(400_000, rank) for rank in range(2)]
        dead = them.begin(0, lambda world: world.all_reduce(data[0], timeout=20))
        until_come(them, 0)
        them.all[0].die()
        assert isinstance(dead.exception(20), Exception)
        same(them.begin(1, lambda world: world.all_reduce(data[1])).result(20), data[0] + data[1])
        # The next attempt brings something else, which does not count.
        them.again(0, 1)
        other = fresh(400_000, 77)
        same(them.begin(0, lambda world: world.all_reduce(other)).result(20), data[0] + data[1])
        assert them.run(lambda world: world.all_gather(world.rank)) == [[0, 1], [0, 1]]


def test_a_plane_that_begins_anew_is_given_what_came_of_calls_before() -> None:
    with members([0, 1, 2]) as them:
        data = [fresh(400_000, rank) for rank in range(3)]

        def work(world: Any) -> list[Any]:
            return [
                world.all_reduce(data[world.rank]),
                world.all_gather(data[world.rank][:30_000]),
                world.all_gather(world.rank),
                world.barrier(),
            ]

        first = them.run(work)
        them.planes.restart(2)
        them.again(2, 1)
        data[2] = fresh(400_000, 77)  # what it brings now does not count
        again = them.begin(2, work).result(20)
        for got, wanted in zip(again, first[0], strict=True):
            same(got, list(wanted) if isinstance(wanted, list) else wanted)
        assert them.run(lambda world: world.all_reduce(1)) == [3, 3, 3]


@pytest.mark.parametrize("nbytes", [8, 1_600_000])
@pytest.mark.parametrize("kind", ["all_reduce", "gather", "scatter", "reduce_scatter"])
def test_a_call_that_a_plane_forgot_is_begun_anew(kind: str, nbytes: int) -> None:
    """Its member had given its value, which the next attempt gives again."""
    with members([0, 1, 2]) as them:
        ones = np.ones(nbytes // 8)

        def work(world: Any) -> Any:
            if kind == "gather":
                return world.gather(ones * world.rank, root=1)
            if kind == "scatter":
                return world.scatter(
                    [ones * at for at in range(3)] if world.rank == 2 else None, root=2
                )
            return getattr(world, kind)(ones)

        them.begin(2, work)
        if kind == "all_reduce" or nbytes > 8:
            until_come(them, 2)
        them.planes.restart(2)
        them.again(2, 1)
        for rank, got in enumerate(them.run(work)):
            if isinstance(got, BaseException):
                raise got
            if kind == "gather":
                assert (got is None) == (rank != 1)
            elif kind == "scatter":
                same(got, ones * rank)
            elif kind == "all_reduce":
                same(got, ones * 3)
            else:
                same(got, np.array_split(ones * 3, 3)[rank])


@pytest.mark.parametrize("behind", [[], [0], [2]], ids=str)
def test_an_instance_that_is_placed_on_another_node_takes_part_there(behind: list[int]) -> None:
    """Whoever of the others hears of that late."""
    with planes(4) as them:
        found = Members(them, [0, 1, 2])
        try:
            ones = np.ones(100_000)
            futures = [found.begin(at, lambda world: world.all_reduce(ones)) for at in (0, 1)]
            until_come(found, 0)
            until_come(found, 1)
            told = [node for at, node in enumerate(them.nodes) if at not in behind]
            found.again(2, 1, node=3, told=told)
            futures.append(found.begin(2, lambda world: world.all_reduce(ones * 2)))
            if behind:
                until_come(found, 2)
                them.enroll(found.on, attempts={2: 1})
            for future in futures:
                same(future.result(20), ones * 4)
        finally:
            found.close()


def test_a_node_that_was_lost_and_comes_back_is_heard_again() -> None:
    """It is not told itself."""
    with members([0, 1, 2]) as them:
        assert them.run(lambda world: world.all_gather(world.rank)) == [[0, 1, 2]] * 3
        gone = them.planes.nodes[2]
        departed = Departed(gone.id, gone.alias, gone.peer.key, Departure.LOST)
        told = DirectoryChanged(SWARM, them.planes.epoch, False, (), (departed,))
        for node in them.planes.nodes[:2]:
            node.run(node.plane.told, told)
        for node in them.planes.nodes[:2]:
            them.planes.introduce_to(node)
        them.planes.enroll(them.on)

        def knows() -> bool:
            posts = gone.plane._desks._desks[SWARM].peers._posts.values()
            return all(post._peer is not None and post._peer.losses == 1 for post in posts)

        until(lambda: gone.run(knows))
        for at in range(5):

            def work(world: Any, at: int = at) -> Any:
                return world.all_reduce(at)

            assert them.run(work) == [3 * at] * 3


def test_a_call_that_failed_because_of_a_loss_is_begun_anew_by_next_attempts() -> None:
    with members([0, 1, 2]) as them:
        ones = np.ones(100_000)
        futures = [them.begin(at, lambda world: world.all_reduce(ones)) for at in (0, 1)]
        until_come(them, 0)
        until_come(them, 1)
        gone = them.planes.nodes[2]
        gone.close()
        them.planes.remove(2)
        for future in futures:
            assert isinstance(future.exception(20), PeerLost)
        for rank in (0, 1):
            them.all[rank].die()
            them.again(rank, 1)
        them.again(2, 1, node=1)
        for got in them.run(lambda world: world.all_reduce(ones)):
            same(got, ones * 3)


def test_a_member_that_is_given_up_or_has_finished_is_named_to_all_others() -> None:
    with members([0, 1, 2]) as them:
        ones = np.ones(100_000)
        futures = [them.begin(rank, lambda world: world.all_reduce(ones)) for rank in (0, 1)]
        them.all[2].die(counts=True)
        them.planes.enroll(r2="FINISHED")
        for future in futures:
            error = future.exception(20)
            assert isinstance(error, PeerLost)
            assert "worker.2 on node-3 (it has finished without that call)" in str(error)
            assert str(error).startswith("all_reduce waits for")


@pytest.mark.parametrize("how", ["raise", "continue"])
@pytest.mark.parametrize("nbytes", [8, 8_000_000])
def test_a_lost_node_is_named_or_gone_on_without(nbytes: int, how: str) -> None:
    ones = np.ones(nbytes // 8)

    def work(world: Any) -> Any:
        return world.all_reduce(ones, on_peer_lost=how)

    def check(future: Any) -> None:
        if how == "continue":
            same(future.result(20), ones * 2)
        else:
            error = future.exception(20)
            assert isinstance(error, PeerLost), error
            assert "worker.2 on node-3" in str(error)

    with members([0, 1, 2]) as them:
        futures = [them.begin(rank, work) for rank in (0, 1)]
        until_come(them, 0)
        until_come(them, 1)
        them.planes.nodes[2].close()
        them.planes.remove(2)
        for future in futures:
            check(future)
        if how == "continue":
            assert [list(member.brief.left_out) for member in them.all[:2]] == [[2], [2]]
        # While it may be placed anew, it is waited for.
        futures = [them.begin(rank, work) for rank in (0, 1)]
        them.planes.enroll(given_up={2: "its node was lost"})
        for future in futures:
            check(future)


def test_a_gather_goes_without_who_is_late_or_lost_as_it_is_told() -> None:
    with members([0, 1, 2, 2]) as them:

        def gathers(**options: Any) -> Any:
            return lambda world: world.gather(world.rank, **options)

        assert them.run(gathers()) == [[0, 1, 2, 3], None, None, None]
        first = [them.begin(rank, gathers(quorum=0.75)) for rank in (0, 1, 2)]
        assert sorted(first[0].result(20)) == [0, 1, 2]
        assert first[1].result(20) is None
        late = [them.begin(3, gathers(quorum=0.75))]
        assert late[0].result(20) is None
        first = [them.begin(rank, gathers(deadline=0.3)) for rank in (0, 1)]
        assert sorted(first[0].result(20)) == [0, 1]
        late = [them.begin(rank, gathers(deadline=0.3)) for rank in (2, 3)]
        first = [them.begin(rank, gathers(deadline=0.6, timeout=0.1)) for rank in (0, 1)]
        assert sorted(first[0].result(20)) == [0, 1]  # the deadline is the later of both
        late += [them.begin(rank, gathers(deadline=0.6, timeout=0.1)) for rank in (2, 3)]
        first = [them.begin(rank, gathers(deadline="auto")) for rank in (0, 1, 2)]
        assert sorted(first[0].result(20)) == [0, 1, 2]
        them.begin(3, gathers(deadline="auto")).result(20)
        first = [them.begin(rank, gathers(quorum="alive")) for rank in (0, 1, 2)]
        them.all[3].die(counts=True)
        them.planes.enroll(them.on, r3="FINISHED")
        assert sorted(first[0].result(20)) == [0, 1, 2]
        assert isinstance(them.begin(0, gathers()).exception(20), PeerLost)


def test_waits_end_in_time_and_name_who_has_not_come() -> None:
    with members([0, 1, 2]) as them:
        error = them.begin(0, lambda world: world.barrier(timeout=0.2)).exception(20)
        assert isinstance(error, Timeout)
        assert str(error) == (
            "Waited 0.2 s in vain: barrier waits for worker.1 on node-2 (running), worker.2 on "
            "node-3 (running)."
        )
        assert them.begin(1, lambda world: world.barrier(timeout=0.2)).exception(20)
        error = them.begin(1, lambda world: world.scatter(timeout=0.2)).exception(20)
        assert isinstance(error, Timeout)
        assert "scatter waits for worker.0 on node-1" in str(error)


def test_what_is_too_large_for_the_node_is_refused_with_the_arithmetic() -> None:
    with members([0, 1], most=8 << 20, disk=8 << 20) as them:
        for error in them.run(lambda world: world.all_reduce(np.ones(2_000_000))):
            assert isinstance(error, ResourceExhaustionError)
            assert "at most 8.0 MiB for which there is room on its disk" in str(error)
            assert "A value of 15.3 MiB does not fit" in str(error)
    with members([0, 1], most=24 << 20, disk=8 << 20) as them:
        errors = them.run(lambda world: world.all_reduce(np.ones(2_000_000)))
        for error in errors:
            assert isinstance(error, ResourceExhaustionError)
            assert "node-1 has no room" in str(error) or "node-2 has no room" in str(error)
        assert them.run(lambda world: world.all_reduce(1)) == [2, 2]


def test_arrays_stay_as_they_are_while_they_are_held() -> None:
    with members([0, 1]) as them:

        def work(world: Any) -> list[Any]:
            found = [world.all_reduce(np.full(100_000, float(at))) for at in range(6)]
            found[0][:] = -1  # is its own
            found.append(world.all_reduce(np.full(100_000, 9.0)))
            return [float(one[5]) for one in found]

        assert them.run(work) == [[-1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 18.0]] * 2


def test_the_swarm_s_end_ends_all_waits() -> None:
    with members([0, 1]) as them:
        future = them.begin(0, lambda world: world.all_reduce(np.ones(100_000)))
        node = them.planes.nodes[0]
        until(lambda: node.run(lambda: node.plane._desks._desks[SWARM].calls.all))
        node.run(node.plane.close)
        assert future.exception(20) is not None


def test_garbage_of_a_peer_costs_its_link_and_fails_nobody_else() -> None:
    with members([0, 1]) as them:
        assert them.run(lambda world: world.all_reduce(1)) == [2, 2]
        one, two = them.planes.nodes
        call, places = messages.CallName(0, "worker", 7), messages.Places(0, b"")
        for message in (
            messages.CollectivesHeard(10**9),
            messages.CollectiveSaid(10**6, 0, call, places, messages.packed(Wanted((), ()))),
            messages.Introduced(messages.Side(b"other", 0), None, 10**9, 10**9, True),
        ):
            told = pack(SWARM, them.planes.epoch, message)
            two.run(two.plane._links.send, one.peer.key, told)
        assert not any(them.run(lambda world: world.barrier(timeout=15)))
        assert one.run(lambda: True)
