"""Memory of collectives: used again, bounded, and nobody's while somebody has it mapped."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import pytest

from manta.node.plane.collectives.memory import IDLE, WRITING, Pool
from manta.node.plane.parcels import NoRoom
from manta.protocol.base import Instance

AT = Instance("s", "w", 0, 0, 0)
MIB = 1 << 20


class Budget:
    def __init__(self, most: int) -> None:
        self.most = most
        self.size = 0
        self.now = 0.0
        self.pool: Pool | None = None

    def take_room(self, size: int) -> None:
        assert self.pool is not None
        self.pool.reclaim(lambda: self.size + size > self.most)
        if self.size + size > self.most:
            raise NoRoom(f"{self.size} of {self.most}, {size} more")
        self.size += size

    def give_room(self, size: int) -> None:
        self.size -= size


@pytest.fixture
def budget() -> Iterator[Budget]:
    made = Budget(10 * MIB)
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


def test_room_is_made_of_what_is_idle_then_of_what_is_lent_then_of_what_is_kept(
    budget: Budget,
) -> None:
    pool = budget.pool
    assert pool is not None
    kept = [pool.take(3 * MIB, AT.swarm_id)]

    def evict() -> bool:
        if not kept:
            return False
        pool.drop(kept.pop())
        return True

    pool.evict = evict
    idle, lent = pool.take(3 * MIB, AT.swarm_id), pool.take(3 * MIB, AT.swarm_id)
    pool.lend(lent, AT)
    pool.drop(lent)
    pool.drop(idle)
    held = [pool.take(4 * MIB, AT.swarm_id)]
    assert budget.size == 10 * MIB
    held.append(pool.take(2 * MIB, AT.swarm_id))
    assert budget.size == 9 * MIB
    assert kept
    held.append(pool.take(4 * MIB, AT.swarm_id))
    assert not kept
    with pytest.raises(NoRoom):
        pool.take(MIB, AT.swarm_id)
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
