"""Memory of collectives: used again, bounded, and nobody's while somebody has it mapped."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta.node.plane import value_files
from manta.node.plane.collectives import memory
from manta.node.plane.collectives.memory import IDLE, WRITING, Pool
from manta.node.plane.collectives.spill import FILE, Spill
from manta.node.plane.parcels import NoRoom
from manta.protocol.base import Instance

AT = Instance("s", "w", 0, 0, 0)
MIB = 1 << 20


class Budget:
    def __init__(self, most: int, folder: Path, disk: int) -> None:
        self.most, self.most_on_disk = most, disk
        self.folder = folder
        self.size = self.on_disk = 0
        self.now = 0.0
        self.pool: Pool | None = None

    def take_room(self, size: int) -> None:
        assert self.pool is not None
        self.pool.reclaim(lambda: self.size + size > self.most)
        if self.size + size > self.most:
            raise NoRoom(f"{self.size} of {self.most}, {size} more")
        self.size += size

    def count(self, size: int) -> None:
        self.size += size

    def give_room(self, size: int) -> None:
        self.size -= size

    def take_file(self, size: int) -> int:
        if self.on_disk + size > self.most_on_disk:
            raise NoRoom(f"{self.on_disk} of {self.most_on_disk} on disk, {size} more")
        self.on_disk += size
        return value_files.nameless(self.folder, size)

    def give_disk(self, size: int) -> None:
        self.on_disk -= size


@pytest.fixture
def budget(tmp_path: Path) -> Iterator[Budget]:
    made = Budget(10 * MIB, tmp_path, disk=0)
    made.pool = Pool(made, lambda: made.now)
    yield made
    made.pool.close()


def test_what_is_given_back_is_used_again(budget: Budget) -> None:
    pool = budget.pool
    assert pool is not None
    first = pool.take(MIB, AT.swarm_id)
    pool.drop(first)
    assert pool.take(MIB - 100, AT.swarm_id) is first
    second = pool.take(MIB, AT.swarm_id)
    assert second is not first
    pool.drop(first)
    pool.drop(second)


def test_no_swarm_is_given_what_another_had(budget: Budget) -> None:
    pool = budget.pool
    assert pool is not None
    block = pool.take(MIB, AT.swarm_id)
    pool.drop(block)
    other = pool.take(MIB, "another")
    assert other is not block
    assert not any(other.view)
    pool.drop(other)
    assert pool.take(MIB, AT.swarm_id) is block
    pool.drop(block)


def test_a_block_is_not_used_again_while_it_is_mapped_or_moved(budget: Budget) -> None:
    pool = budget.pool
    assert pool is not None
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


def test_what_an_attempt_had_mapped_at_its_end_is_never_used_again(budget: Budget) -> None:
    pool = budget.pool
    assert pool is not None
    block = pool.take(MIB, AT.swarm_id)
    pool.lend(block, AT)
    pool.forget(AT)
    pool.drop(block)
    assert budget.size == 0
    pool.returned(AT, block.number)  # comes late
    other = pool.take(MIB, AT.swarm_id)
    assert other is not block
    pool.drop(other)


def test_what_was_mapped_is_used_again_once_all_processes_that_had_it_are_gone(
    budget: Budget,
) -> None:
    pool = budget.pool
    assert pool is not None
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
    budget: Budget,
) -> None:
    pool = budget.pool
    assert pool is not None
    room, _ = pool.room(AT, 5, MIB)
    assert pool.enter(AT, room.number) is room
    pool.forget(AT, is_gone=True)
    following = Instance("s", "w", 0, 1, 0)
    while_read, _ = pool.room(following, 5, MIB)
    assert while_read is not room
    pool.drop(room)
    for at in (Instance("s", "w", 1, 1, 0), Instance("s", "v", 0, 1, 0)):
        another, _ = pool.room(at, 5, MIB)
        assert another is not room
        pool.forget(at)
    again, is_new = pool.room(following, 6, MIB)
    assert again is room
    assert is_new  # it has yet to be given the descriptor
    assert pool.enter(AT, room.number) is None
    assert pool.enter(following, room.number) is room
    pool.drop(room)
    assert pool.room(following, 6, MIB) == (room, False)
    pool.forget(following)
    assert budget.size == 0


def test_a_task_can_not_change_a_block(budget: Budget) -> None:
    pool = budget.pool
    assert pool is not None
    block = pool.take(MIB, AT.swarm_id)
    with pytest.raises(PermissionError):
        mmap.mmap(block.fd, MIB)
    private = mmap.mmap(block.fd, MIB, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    private[:3] = b"abc"
    assert bytes(block.view[:3]) == bytes(3)
    private.close()
    pool.drop(block)


def test_rooms_are_of_one_attempt_and_come_once(budget: Budget) -> None:
    pool = budget.pool
    assert pool is not None
    other = Instance("s", "w", 1, 0, 0)
    room, is_new = pool.room(AT, 5, MIB)
    assert is_new
    assert pool.enter(other, room.number) is None
    assert pool.enter(AT, room.number) is room
    assert pool.enter(AT, room.number) is None
    pool.drop(room)
    theirs, _ = pool.room(other, 5, MIB)
    assert theirs is not room
    again, is_new = pool.room(AT, 5, MIB)
    assert again is room
    assert not is_new
    pool.forget(AT)  # while it writes
    pool.forget(other)
    assert budget.size == 0


def test_a_connection_has_one_room_that_no_call_was_made_with(budget: Budget) -> None:
    pool = budget.pool
    assert pool is not None
    first, _ = pool.room(AT, 5, MIB)
    for _ in range(100):
        pool.room(AT, 5, MIB)
    assert budget.size == first.size
    pool.leave(AT, 5)
    assert pool.enter(AT, first.number) is None
    pool.forget(AT)
    assert budget.size == 0


def test_no_swarm_takes_all_memory_by_what_it_is_writing(budget: Budget) -> None:
    pool = budget.pool
    assert pool is not None
    pool.room(AT, 5, 4 * MIB)
    pool.room(AT, 6, 3 * MIB)
    with pytest.raises(NoRoom, match=r"writing 7\.0 MiB .* of at most 7\.5 MiB, and 1\.0 MiB"):
        pool.room(AT, 7, MIB)
    other = Instance("another", "w", 0, 0, 0)
    pool.room(other, 5, MIB)
    pool.forget(AT)
    pool.forget(other)


def test_a_room_that_nobody_writes_goes_to_who_needs_it(budget: Budget) -> None:
    pool = budget.pool
    assert pool is not None
    unwritten, _ = pool.room(AT, 5, 7 * MIB)
    budget.now = WRITING - 1
    with pytest.raises(NoRoom):
        pool.take(4 * MIB, "another")
    budget.now = WRITING
    block = pool.take(4 * MIB, "another")
    assert pool.enter(AT, unwritten.number) is None
    pool.drop(block)
    pool.forget(AT)


def test_room_is_made_of_what_is_idle_then_of_what_is_lent_and_not_of_what_is_kept(
    budget: Budget,
) -> None:
    pool = budget.pool
    assert pool is not None
    held = [pool.take(3 * MIB, AT.swarm_id)]
    idle, lent = pool.take(3 * MIB, AT.swarm_id), pool.take(3 * MIB, AT.swarm_id)
    pool.lend(lent, AT)
    pool.drop(lent)
    pool.drop(idle)
    held.append(pool.take(4 * MIB, AT.swarm_id))
    assert budget.size == 10 * MIB
    held.append(pool.take(2 * MIB, AT.swarm_id))
    assert budget.size == 9 * MIB
    with pytest.raises(NoRoom, match="on disk"):
        pool.take(2 * MIB, AT.swarm_id)
    for block in held:
        pool.drop(block)


def test_idle_memory_goes_back_to_the_system_after_a_while(budget: Budget) -> None:
    pool = budget.pool
    assert pool is not None
    pool.drop(pool.take(MIB, AT.swarm_id))
    assert pool.due == IDLE
    pool.tick(IDLE - 0.1)
    assert budget.size == MIB
    pool.tick(IDLE)
    assert budget.size == 0
    assert pool.due is None


def test_what_finds_no_room_in_memory_is_a_file_that_tasks_can_only_read(budget: Budget) -> None:
    pool = budget.pool
    assert pool is not None
    budget.most_on_disk = 16 * MIB
    first, second = pool.take(4 * MIB, AT.swarm_id), pool.take(8 * MIB, AT.swarm_id)
    assert (first.is_file, second.is_file) == (False, True)
    assert (budget.size, budget.on_disk) == (4 * MIB, 8 * MIB)
    second.view[-3:] = b"end"
    assert os.pread(second.fd, 3, 8 * MIB - 3) == b"end"
    with pytest.raises(OSError, match="Bad file"):
        os.pwrite(second.fd, b"x", 0)
    with pytest.raises(NoRoom):  # a room could be cut short
        pool.room(AT, 5, 8 * MIB)
    third = pool.take(8 * MIB, AT.swarm_id)
    with pytest.raises(NoRoom, match="on disk, 8388608 more"):
        pool.take(8 * MIB, AT.swarm_id)
    pool.drop(second)
    assert pool.take(8 * MIB, AT.swarm_id) is second
    pool.drop(second)
    other = pool.take(8 * MIB, "another")  # in the place of what is idle
    assert other.is_file
    for block in (first, third, other):
        pool.drop(block)
    pool.close()
    assert (budget.size, budget.on_disk) == (0, 0)


def test_what_is_kept_leaves_memory_for_rooms_while_there_is_a_disk(budget: Budget) -> None:
    pool = budget.pool
    assert pool is not None
    budget.most_on_disk = 4 * MIB
    held = [pool.take(4 * MIB, AT.swarm_id) for _ in range(2)]
    assert [block.is_file for block in held] == [False, True]
    room, _ = pool.room(AT, 5, 4 * MIB)
    held += [room, pool.take(2 * MIB, AT.swarm_id)]  # of what is left, where no disk is
    assert budget.size == 10 * MIB
    assert pool.enter(AT, room.number) is room
    for block in held:
        pool.drop(block)


def test_what_is_used_again_has_nothing_of_before_beyond_its_value(budget: Budget) -> None:
    pool = budget.pool
    assert pool is not None
    block = pool.take(MIB, AT.swarm_id)
    block.view[:] = b"x" * block.size
    block.written = block.size
    pool.drop(block)
    assert pool.take(MIB - 1000, AT.swarm_id) is block
    assert not any(block.view[MIB - 1000 :])
    pool.drop(block)


def test_a_swarm_that_is_over_leaves_nothing(budget: Budget) -> None:
    pool = budget.pool
    assert pool is not None
    pool.drop(pool.take(MIB, AT.swarm_id))
    other = pool.take(MIB, "another")
    pool.drop(other)
    pool.end_swarm(AT.swarm_id)
    assert budget.size == MIB
    assert pool.take(MIB, "another") is other
    pool.drop(other)


def test_descriptors_are_bounded_with_the_arithmetic(
    budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = budget.pool
    assert pool is not None
    monkeypatch.setattr(memory, "descriptor_limit", lambda: 8)
    held = [pool.take(MIB, AT.swarm_id), pool.take(MIB, AT.swarm_id)]
    with pytest.raises(NoRoom, match="keeps 2 large values of collectives, of at most 2"):
        pool.take(MIB, AT.swarm_id)
    pool.drop(held.pop())
    held.append(pool.take(3 * MIB, AT.swarm_id))
    for block in held:
        pool.drop(block)


def test_memory_of_another_node_is_used_by_nobody_else(budget: Budget) -> None:
    pool = budget.pool
    assert pool is not None
    fd = os.memfd_create("value", os.MFD_CLOEXEC)
    os.write(fd, b"a" * MIB)
    block = pool.adopt(fd, MIB, AT.swarm_id)
    assert bytes(block.view[-2:]) == b"aa"
    assert budget.size == MIB
    with pytest.raises(TypeError):
        block.view[0] = 0
    pool.drop(block)
    assert budget.size == 0


def test_small_values_of_calls_that_are_over_go_into_files_for_new_ones(
    budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LEAST_SMALL", 10 * MIB)
    pool = budget.pool
    assert pool is not None
    budget.most_on_disk = FILE
    spill = Spill(pool)
    kept = [memoryview(bytes([at]) * MIB) for at in range(10)]
    places = []

    def one_more() -> bool:
        if not kept:
            return False
        places.extend(spill.write([kept.pop(0)]))
        pool.give_small(MIB)
        return True

    pool.spill = one_more
    for _ in range(15):
        pool.take_small(MIB)
    assert (len(kept), len(places)) == (5, 5)
    assert (budget.size, budget.on_disk) == (10 * MIB, FILE)
    assert [spill.read(place)[:1] for place in places] == [bytes([at]) for at in range(5)]
    for _ in range(5):
        pool.take_small(MIB)
    with pytest.raises(NoRoom, match=r"10\.0 MiB of small values and of what was called"):
        pool.take_small(MIB)
    for place in places:
        spill.drop(place)
    assert budget.on_disk == 0


def test_a_file_is_as_large_as_what_it_is_for_and_refused_as_a_whole(budget: Budget) -> None:
    pool = budget.pool
    assert pool is not None
    spill = Spill(pool)
    with pytest.raises(NoRoom):
        spill.write([memoryview(b"x")])
    budget.most_on_disk = 2 * FILE + 1
    one, other = spill.write([memoryview(b"x"), memoryview(b"y" * (FILE + 1))])
    assert budget.on_disk == 2 * FILE + 1
    with pytest.raises(NoRoom):  # the first of them finds room
        spill.write([memoryview(b""), memoryview(b"z" * FILE)])
    assert (spill.read(one), spill.read(other)[-1:]) == (b"x", b"y")
    spill.drop(one)
    spill.drop(other)
    assert budget.on_disk == 0
