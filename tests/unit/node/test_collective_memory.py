"""Memory of collectives: used again, bounded, and nobody's while somebody has it mapped."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.node.plane.collectives import memory
from manta.node.plane.collectives.block import Block, is_of_size
from manta.node.plane.collectives.memory import IDLE, WRITING, Pool
from manta.node.plane.collectives.spare import Footprint, Size
from manta.node.plane.collectives.spill import FILE, Spill, Spilled
from manta.node.plane.parcels import NoRoom
from manta.node.plane.shares import Whose
from manta.protocol.base import Instance
from tests.support.budgets import Budget, on_disk, shared

AT = Instance("s", "w", 0, 0, 0)
MIB = 1 << 20


@pytest.fixture
def budget(tmp_path: Path) -> Budget:
    """Of which a swarm that is alone may take 10 MiB of memory, and nothing on disk."""
    return Budget(shared(10 * MIB), 0, tmp_path)


@pytest.fixture
def pool(budget: Budget) -> Iterator[Pool]:
    made = Pool(budget, lambda: budget.now)
    yield made
    made.close()


def test_what_is_given_back_is_used_again(budget: Budget, pool: Pool) -> None:
    first = pool.take(MIB, AT.swarm_id)
    pool.drop(first)
    assert pool.take(MIB - 100, AT.swarm_id) is first
    second = pool.take(MIB, AT.swarm_id)
    assert second is not first
    pool.drop(first)
    pool.drop(second)


def test_no_swarm_is_given_what_another_had(budget: Budget, pool: Pool) -> None:
    block = pool.take(MIB, AT.swarm_id)
    pool.drop(block)
    other = pool.take(MIB, "another")
    assert other is not block
    assert not any(other.view)
    pool.drop(other)
    assert pool.take(MIB, AT.swarm_id) is block
    pool.drop(block)


def test_a_block_is_not_used_again_while_it_is_mapped_or_moved(budget: Budget, pool: Pool) -> None:
    block = pool.take(MIB, AT.swarm_id)
    pool.lend(block, AT)
    pool.hold(block)
    pool.drop(block)
    pool.drop(block)
    other = pool.take(MIB, AT.swarm_id)
    assert other is not block
    pool.returned(AT, block.number)
    assert pool.take(MIB, AT.swarm_id) is block
    pool.drop(block)
    pool.drop(other)


def test_what_an_attempt_had_mapped_at_its_end_is_never_used_again(
    budget: Budget, pool: Pool
) -> None:
    block = pool.take(MIB, AT.swarm_id)
    pool.lend(block, AT)
    pool.forget(AT)
    pool.drop(block)
    assert budget.memory.used == 0
    pool.returned(AT, block.number)  # comes late
    other = pool.take(MIB, AT.swarm_id)
    assert other is not block
    pool.drop(other)


def test_what_was_mapped_is_used_again_once_all_processes_that_had_it_are_gone(
    budget: Budget, pool: Pool
) -> None:
    other = Instance("s", "w", 1, 0, 0)
    for is_gone in (True, False):
        block = pool.take(MIB, AT.swarm_id)
        pool.lend(block, AT)
        pool.lend(block, other)
        pool.forget(AT, is_gone=True)
        pool.drop(block)
        while_mapped = pool.take(MIB, AT.swarm_id)
        assert while_mapped is not block
        pool.forget(other, is_gone=is_gone)
        after = pool.take(MIB, AT.swarm_id)
        assert (after is block) is is_gone
        pool.drop(after)
        pool.drop(while_mapped)


def test_a_room_goes_to_the_next_attempt_of_its_instance_once_its_process_is_gone(
    budget: Budget, pool: Pool
) -> None:
    room = pool.room(AT, 5, MIB)
    assert pool.enter(AT, room.number) is room
    pool.forget(AT, is_gone=True)
    following = Instance("s", "w", 0, 1, 0)
    while_read = pool.room(following, 5, MIB)
    assert while_read is not room
    pool.drop(room)
    for at in (Instance("s", "w", 1, 1, 0), Instance("s", "v", 0, 1, 0)):
        another = pool.room(at, 5, MIB)
        assert another is not room
        pool.forget(at)
    assert pool.room(following, 6, MIB) is room
    assert pool.has_room(following, room.number)
    assert not pool.has_room(AT, room.number)
    assert pool.enter(AT, room.number) is None
    assert pool.enter(following, room.number) is room
    pool.drop(room)
    assert pool.room(following, 6, MIB) is room
    pool.forget(following)
    assert budget.memory.used == 0


def test_a_task_can_not_change_a_block(budget: Budget, pool: Pool) -> None:
    block = pool.take(MIB, AT.swarm_id)
    with pytest.raises(PermissionError):
        mmap.mmap(block.fd, MIB)
    private = mmap.mmap(block.fd, MIB, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    private[:3] = b"abc"
    assert bytes(block.view[:3]) == bytes(3)
    private.close()
    pool.drop(block)


def test_rooms_are_of_one_attempt_and_come_once(budget: Budget, pool: Pool) -> None:
    other = Instance("s", "w", 1, 0, 0)
    room = pool.room(AT, 5, MIB)
    assert pool.has_room(AT, room.number)
    assert not pool.has_room(other, room.number)
    assert pool.enter(other, room.number) is None
    assert pool.enter(AT, room.number) is room
    assert pool.enter(AT, room.number) is None
    pool.drop(room)
    theirs = pool.room(other, 5, MIB)
    assert theirs is not room
    assert pool.room(AT, 5, MIB) is room
    pool.forget(AT)  # while it writes
    pool.forget(other)
    assert budget.memory.used == 0


def test_a_room_that_is_given_back_takes_its_pages_along(budget: Budget, pool: Pool) -> None:
    room = pool.room(AT, 5, MIB)
    theirs, fd = mmap.mmap(room.fd, room.size), os.dup(room.fd)
    theirs[:] = b"x" * room.size
    assert os.fstat(fd).st_blocks * 512 >= room.size
    pool.leave(AT, 5)
    pool.tick(IDLE)
    assert not pool.has_room(AT, room.number)
    assert os.fstat(fd).st_blocks == 0
    theirs[:3] = b"abc"  # a task that does not know yet comes to no harm
    theirs.close()
    os.close(fd)


def test_a_connection_has_one_room_that_no_call_was_made_with(budget: Budget, pool: Pool) -> None:
    first = pool.room(AT, 5, MIB)
    for _ in range(100):
        pool.room(AT, 5, MIB)
    assert budget.memory.used == first.size
    pool.leave(AT, 5)
    assert pool.enter(AT, first.number) is None
    pool.forget(AT)
    assert budget.memory.used == 0


def test_no_swarm_takes_all_memory_by_what_it_is_writing(budget: Budget, pool: Pool) -> None:
    pool.room(AT, 5, 4 * MIB)
    pool.room(AT, 6, 3 * MIB)
    with pytest.raises(NoRoom, match=r"writing 7\.0 MiB .* of at most 8\.6 MiB, and 2\.0 MiB"):
        pool.room(AT, 7, 2 * MIB)
    other = Instance("another", "w", 0, 0, 0)
    pool.room(other, 5, MIB)
    pool.forget(AT)
    pool.forget(other)


def fill(take: Callable[[], object]) -> int:
    """How often it can be done."""
    for count in range(1000):
        try:
            take()
        except NoRoom:
            return count
    raise AssertionError("it goes on for ever")


def test_what_one_swarm_keeps_of_collectives_leaves_room_for_others(
    budget: Budget, pool: Pool
) -> None:
    budget.memory.most = budget.disk.most = 64 * MIB
    assert fill(lambda: pool.take(MIB, "greedy")) == 2 * 56
    assert budget.sizes == (56 * MIB, 56 * MIB)
    letter = 7 * MIB
    budget.take_room(letter, "other")
    budget.memory.give("other", letter)
    room = pool.room(Instance("other", "w", 0, 0, 0), 5, 4 * MIB)
    assert pool.enter(Instance("other", "w", 0, 0, 0), room.number) is room
    pool.drop(room)
    assert fill(lambda: pool.take(MIB, "other")) == 2 * 7
    assert fill(lambda: pool.take_small(MIB, "greedy")) == 56
    assert fill(lambda: pool.take_small(MIB, "other")) == 7


def test_one_swarm_leaves_descriptors_for_others(
    budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "descriptor_limit", lambda: 4 * 64)
    pool = Pool(budget, lambda: 0.0)
    assert fill(lambda: pool.take(1, "greedy")) == 56
    assert fill(lambda: pool.take(1, "other")) == 7
    pool.close()


def test_files_for_small_values_count_for_their_swarm(budget: Budget, pool: Pool) -> None:
    budget.disk.most = 8 * FILE
    greedy, other = Spill(pool, "greedy", on_disk), Spill(pool, "other", on_disk)
    value = memoryview(bytes(FILE))
    places = [greedy.write([value])[0] for _ in range(7)]
    with pytest.raises(NoRoom, match=r"112\.0 MiB of them for this swarm, which may have 112\.0"):
        greedy.write([value])
    greedy.drop(places.pop())
    places += greedy.write([value])
    for place in places:
        greedy.drop(place)
    place = other.write([memoryview(b"x")])[0]
    assert budget.disk.of("other") == FILE
    other.drop(place)
    assert budget.disk.used == 0


def test_a_swarm_gives_up_its_own_before_others_and_nothing_in_vain(tmp_path: Path) -> None:
    budget = Budget(64 * MIB, 0, tmp_path)
    pool = Pool(budget, lambda: budget.now)
    for swarm_id in ("other", "s"):
        for block in [pool.take(4 * MIB, swarm_id) for _ in range(2)]:
            pool.drop(block)
    budget.memory.take("s", 39 * MIB)
    with pytest.raises(NoRoom):
        budget.take_room(18 * MIB, "s")
    assert budget.memory.of("other") == 8 * MIB
    assert budget.memory.of("s") == 47 * MIB
    budget.take_room(10 * MIB, "s")
    assert budget.memory.of("other") == 8 * MIB
    assert budget.memory.of("s") == 49 * MIB
    budget.take_room(3 * MIB, "s")
    assert budget.memory.of("other") == 4 * MIB
    budget.memory.give("s", 52 * MIB)
    pool.close()


def test_a_room_that_nobody_writes_goes_to_who_needs_it(budget: Budget, pool: Pool) -> None:
    unwritten = pool.room(AT, 5, 7 * MIB)
    budget.now = WRITING - 1
    with pytest.raises(NoRoom):
        pool.take(4 * MIB, "another")
    budget.now = WRITING
    block = pool.take(4 * MIB, "another")
    assert pool.enter(AT, unwritten.number) is None
    pool.drop(block)
    pool.forget(AT)


def test_room_is_made_of_what_is_idle_then_of_what_is_lent_and_not_of_what_is_kept(
    budget: Budget, pool: Pool
) -> None:
    held = [pool.take(3 * MIB, AT.swarm_id)]
    idle, lent = pool.take(3 * MIB, AT.swarm_id), pool.take(3 * MIB, AT.swarm_id)
    pool.lend(lent, AT)
    pool.drop(lent)
    pool.drop(idle)
    held.append(pool.take(4 * MIB, AT.swarm_id))
    assert budget.memory.used == 10 * MIB
    held.append(pool.take(2 * MIB, AT.swarm_id))
    assert budget.memory.used == 9 * MIB
    with pytest.raises(NoRoom, match=r"9\.0 MiB of them for this swarm, which may have 10\.0 MiB"):
        pool.take(2 * MIB, AT.swarm_id)
    for block in held:
        pool.drop(block)


def test_idle_memory_goes_back_to_the_system_after_a_while(budget: Budget, pool: Pool) -> None:
    pool.drop(pool.take(MIB, AT.swarm_id))
    assert pool.due == IDLE
    pool.tick(IDLE - 0.1)
    assert budget.memory.used == MIB
    pool.tick(IDLE)
    assert budget.memory.used == 0
    assert pool.due is None


def test_what_finds_no_room_in_memory_is_a_file_that_tasks_can_only_read(
    budget: Budget, pool: Pool
) -> None:
    budget.disk.most = shared(16 * MIB)
    first, second = pool.take(4 * MIB, AT.swarm_id), pool.take(8 * MIB, AT.swarm_id)
    assert (first.is_file, second.is_file) == (False, True)
    assert (budget.memory.used, budget.disk.used) == (4 * MIB, 8 * MIB)
    second.view[-3:] = b"end"
    assert os.pread(second.fd, 3, 8 * MIB - 3) == b"end"
    with pytest.raises(OSError, match="Bad file"):
        os.pwrite(second.fd, b"x", 0)
    with pytest.raises(NoRoom):  # a room could be cut short
        pool.room(AT, 5, 8 * MIB)
    third = pool.take(8 * MIB, AT.swarm_id)
    with pytest.raises(NoRoom, match=r"16\.0 MiB of them for this swarm, which may have 16\.0 MiB"):
        pool.take(8 * MIB, AT.swarm_id)
    pool.drop(second)
    assert pool.take(8 * MIB, AT.swarm_id) is second
    pool.drop(second)
    other = pool.take(8 * MIB, "another")  # in the place of what is idle
    assert other.is_file
    for block in (first, third, other):
        pool.drop(block)
    pool.close()
    assert (budget.memory.used, budget.disk.used) == (0, 0)


def test_what_is_kept_leaves_memory_for_rooms_while_there_is_a_disk(
    budget: Budget, pool: Pool
) -> None:
    budget.disk.most = shared(4 * MIB)
    held = [pool.take(4 * MIB, AT.swarm_id) for _ in range(2)]
    assert [block.is_file for block in held] == [False, True]
    room = pool.room(AT, 5, 4 * MIB)
    held += [room, pool.take(2 * MIB, AT.swarm_id)]  # of what is left, where no disk is
    assert budget.memory.used == 10 * MIB
    assert pool.enter(AT, room.number) is room
    for block in held:
        pool.drop(block)


def test_what_is_used_again_has_nothing_of_before_beyond_its_value(
    budget: Budget, pool: Pool
) -> None:
    block = pool.take(MIB, AT.swarm_id)
    block.view[:] = b"x" * block.size
    block.written = block.size
    pool.drop(block)
    assert pool.take(MIB - 1000, AT.swarm_id) is block
    assert not any(block.view[MIB - 1000 :])
    pool.drop(block)


def test_a_swarm_that_is_over_leaves_nothing(budget: Budget, pool: Pool) -> None:
    pool.drop(pool.take(MIB, AT.swarm_id))
    other = pool.take(MIB, "another")
    pool.drop(other)
    pool.end_swarm(AT.swarm_id)
    assert budget.memory.used == MIB
    assert pool.take(MIB, "another") is other
    pool.drop(other)


def test_descriptors_are_bounded_with_the_arithmetic(
    budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "descriptor_limit", lambda: 4 * shared(2))
    pool = Pool(budget, lambda: 0.0)
    held = [pool.take(MIB, AT.swarm_id), pool.take(MIB, AT.swarm_id)]
    refusal = "keeps 2 large values of collectives, of at most 3.*; 2 of them for this swarm, which"
    with pytest.raises(NoRoom, match=f"{refusal} may have 2 beside the others"):
        pool.take(MIB, AT.swarm_id)
    pool.drop(held.pop())
    held.append(pool.take(3 * MIB, AT.swarm_id))
    for block in held:
        pool.drop(block)
    pool.close()


def test_memory_of_another_node_is_used_by_nobody_else(budget: Budget, pool: Pool) -> None:
    fd = os.memfd_create("value", os.MFD_CLOEXEC)
    os.write(fd, b"a" * MIB)
    block = pool.adopt(fd, MIB, AT.swarm_id)
    assert bytes(block.view[-2:]) == b"aa"
    assert budget.memory.used == MIB
    with pytest.raises(TypeError):
        block.view[0] = 0
    pool.drop(block)
    assert budget.memory.used == 0


def memory_of_another(size: int) -> int:
    fd = os.memfd_create("value", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd


def test_memory_of_other_nodes_takes_no_more_descriptors_than_there_are(
    budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "descriptor_limit", lambda: 4 * shared(4))
    pool = Pool(budget, lambda: 0.0)
    adopted = [pool.adopt(memory_of_another(1000), 1000, AT.swarm_id) for _ in range(4)]
    fd = memory_of_another(1000)
    with pytest.raises(NoRoom, match="keeps 4 large values of collectives"):
        pool.adopt(fd, 1000, AT.swarm_id)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    for block in adopted:
        pool.drop(block)
    assert budget.memory.used == 0
    pool.close()


def test_what_memory_of_another_node_takes_the_place_of_leaves_room_for_what_comes_next(
    budget: Budget, pool: Pool
) -> None:
    """Half of the memory may be kept: so much is made for a value, and adopted in its place."""
    budget.disk.most = shared(10 * MIB)
    made = pool.take(3 * MIB, AT.swarm_id)
    pool.drop(made)
    adopted = pool.adopt(memory_of_another(3 * MIB), 3 * MIB, AT.swarm_id)
    following = pool.take(MIB, AT.swarm_id)
    assert not following.is_file
    assert budget.sizes == (4 * MIB, 0)
    pool.drop(adopted)
    pool.drop(following)


@pytest.mark.parametrize(
    ("size", "fits"), [(MIB - 1, False), (MIB, True), (MIB + MIB // 16, False), (2 * MIB, False)]
)
def test_memory_is_taken_over_where_hardly_more_than_the_value_lies_in_it(
    size: int, fits: bool
) -> None:
    fd = memory_of_another(size)
    assert is_of_size(fd, MIB) is fits
    os.close(fd)


class Kept:
    """Values of 1 MiB of calls that are over, by swarm, and what went into files. Stands for
    `spare.Keeps`."""

    def __init__(self, pool: Pool, small: dict[str, int], given: dict[str, int]) -> None:
        self.pool = pool
        self.values = small
        self.gave = given
        self.spills = {swarm_id: Spill(pool, swarm_id, on_disk) for swarm_id in small}
        self.places: list[tuple[str, Spilled]] = []
        for swarm_id, count in (*small.items(), *given.items()):
            pool.take_small(count * MIB, swarm_id)
        pool.keeps = self

    def small(self) -> dict[str, int]:
        return {swarm_id: count * MIB for swarm_id, count in self.values.items()}

    def spill(self, whose: Whose) -> bool:
        for swarm_id in [one for one, count in self.values.items() if count and whose(one)]:
            value = memoryview(len(self.places).to_bytes() * MIB)
            (place,) = self.spills[swarm_id].write([value])
            self.places.append((swarm_id, place))
            self._less(self.values, swarm_id)
            return True
        return False

    def given(self) -> dict[str, Footprint]:
        of = {swarm_id: count * MIB for swarm_id, count in self.gave.items()}
        return {swarm_id: Footprint(memory=size, small=size) for swarm_id, size in of.items()}

    def let_go(self, whose: Whose, size: Size) -> bool:
        for swarm_id in [one for one, count in self.gave.items() if count and whose(one)]:
            self._less(self.gave, swarm_id)
            return True
        return False

    def _less(self, counted: dict[str, int], swarm_id: str) -> None:
        counted[swarm_id] -= 1
        self.pool.give_small(MIB, swarm_id)

    def close(self) -> None:
        for swarm_id, place in self.places:
            self.spills[swarm_id].drop(place)


def read(spill: Spill, place: Spilled) -> bytes:
    found = bytearray(place.size)
    spill.read(place, memoryview(found))
    return bytes(found)


def test_small_values_of_calls_that_are_over_go_into_files_for_new_ones(
    budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LEAST_SMALL", shared(10 * MIB))
    budget.disk.most = shared(FILE)
    pool = Pool(budget, lambda: 0.0)
    kept = Kept(pool, {"s": 10}, {})
    for _ in range(5):
        pool.take_small(MIB, "s")
    assert (kept.values["s"], len(kept.places)) == (5, 5)
    assert budget.sizes == (10 * MIB, FILE)
    found = [read(kept.spills["s"], place)[:1] for _, place in kept.places]
    assert found == [bytes([at]) for at in range(5)]
    for _ in range(5):
        pool.take_small(MIB, "s")
    with pytest.raises(
        NoRoom, match=r"10\.0 MiB of small values and of what was called, .*, 10\.0 "
    ):
        pool.take_small(MIB, "s")
    kept.close()
    assert budget.disk.used == 0
    pool.close()


def test_small_values_of_a_swarm_go_into_files_before_those_of_others(
    budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LEAST_SMALL", 16 * MIB)
    budget.disk.most = 4 * FILE
    pool = Pool(budget, lambda: 0.0)
    kept = Kept(pool, {"other": 7, "s": 2}, {"s": 1, "other": 1})
    pool.take_small(6 * MIB, "s")
    assert kept.values == {"other": 7, "s": 0}
    pool.take_small(2 * MIB, "s")
    assert kept.values == {"other": 4, "s": 0}
    with pytest.raises(NoRoom, match=r"9\.0 MiB of them for this swarm, which may have 9\.6 MiB"):
        pool.take_small(8 * MIB, "s")
    assert kept.values == {"other": 4, "s": 0}
    assert kept.gave == {"s": 1, "other": 1}
    pool.take_small(MIB, "another")
    kept.close()
    pool.close()


def test_a_file_is_as_large_as_what_it_is_for_and_refused_as_a_whole(
    budget: Budget, pool: Pool
) -> None:
    spill = Spill(pool, "s", on_disk)
    with pytest.raises(NoRoom):
        spill.write([memoryview(b"x")])
    budget.disk.most = shared(2 * FILE + 1)
    one, other = spill.write([memoryview(b"x"), memoryview(b"y" * (FILE + 1))])
    assert budget.disk.used == 2 * FILE + 1
    with pytest.raises(NoRoom):  # the first of them finds room
        spill.write([memoryview(b""), memoryview(b"z" * FILE)])
    assert (read(spill, one), read(spill, other)[-1:]) == (b"x", b"y")
    spill.drop(one)
    spill.drop(other)
    assert budget.disk.used == 0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_whatever_swarms_do_each_has_its_share_and_all_is_given_back(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    random, folder = Random(seed), tmp_path_factory.mktemp("values")
    page = mmap.PAGESIZE
    budget = Budget(64 * page, 64 * page, folder)
    pool = Pool(budget, lambda: budget.now)
    members = {name: Instance(name, "w", 0, 0, 0) for name in ("a", "b", "c")}
    held: list[Block] = []
    small: list[tuple[int, str]] = []

    def take(name: str) -> None:
        held.append(pool.take(random.randint(1, 20) * page, name))

    def room(name: str) -> None:
        block = pool.room(members[name], random.randint(0, 2), random.randint(1, 20) * page)
        if random.random() < 0.5:
            assert pool.enter(members[name], block.number) is block
            held.append(block)

    def take_small(name: str) -> None:
        size = random.randint(0, page)
        pool.take_small(size, name)
        small.append((size, name))

    def drop(_: str) -> None:
        if held:
            pool.drop(held.pop(random.randrange(len(held))))

    def lend(name: str) -> None:
        if held:
            pool.lend(random.choice(held), members[name])

    def forget(name: str) -> None:
        pool.forget(members[name])

    def wait(_: str) -> None:
        budget.now += random.choice((1, WRITING))
        pool.tick(budget.now)

    for _ in range(200):
        name = random.choice("abc")
        before = budget.memory.of(name), budget.disk.of(name)
        with contextlib.suppress(NoRoom):
            random.choice((take, take, room, room, take_small, drop, lend, forget, wait))(name)
        for shared_room, had in zip((budget.memory, budget.disk), before, strict=True):
            smalls = sum(size for size, whose in small if whose == name)
            assert shared_room.of(name) <= max(had, shared_room.allows(name)) + smalls
            assert sum(map(shared_room.of, "abc")) == shared_room.used
    for block in held:
        pool.drop(block)
    for size, name in small:
        pool.give_small(size, name)
    pool.close()
    assert budget.sizes == (0, 0)
