"""What the values of a collective lie in: kept while a call needs them, and counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manta.light.wire import MAX_FDS
from manta.node.plane.collectives import arranging, memory
from manta.node.plane.collectives.arranging import Arranging, Then
from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.pieces import INLINE, MOST_INLINE, Piece, Pieces
from manta.node.plane.collectives.spill import Spill
from manta.node.plane.parcels import NoRoom
from manta.node.plane.value_room import KeptNoLonger
from manta.transports.collectives.plans import VALUE, Buffer
from manta.transports.collectives.spreading import share_of
from manta.transports.exchange.messages import Parcel
from tests.support.budgets import Budget, on_disk, shared

MIB = 1 << 20


@pytest.fixture
def budget(tmp_path: Path) -> Iterator[Budget]:
    made = Budget(200 * MIB, 200 * MIB, tmp_path)
    yield made
    assert made.sizes == (0, 0)


@pytest.fixture
def pool(budget: Budget) -> Iterator[Pool]:
    made = Pool(budget, lambda: 0.0)
    yield made
    made.close()


def value(rank: int, size: int) -> Buffer:
    return Buffer(VALUE, rank, size)


def made(pool: Pool, released: list[Parcel] | None = None) -> Pieces:
    release = [] if released is None else released
    return Pieces("swarm", pool, Spill(pool, "swarm", on_disk), release.append)


def test_a_parcel_is_released_with_the_last_that_lies_in_it(budget: Budget, pool: Pool) -> None:
    released: list[Parcel] = []
    pieces = made(pool, released)
    parcel, memory = Parcel(b"p" * 16, 300), memoryview(bytes(300))
    shares = [share_of(0, to, 100) for to in range(3)]
    pieces.add(
        {
            one: Piece(memory[at : at + 100], parcel=parcel, offset=at)
            for one, at in zip(shares, (0, 100, 200), strict=True)
        }
    )
    pieces.drop(shares[1:])
    assert not released
    assert pieces.kept(shares[0]).parcel == parcel
    pieces.drop_others([])
    assert released == [parcel]
    with pytest.raises(KeptNoLonger, match="kept no longer on this node, for want of room: go"):
        pieces.kept(shares[0])


def test_small_values_count_until_they_are_dropped(
    budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LEAST_SMALL", shared(1150))
    budget.memory.most = 1000
    pool = Pool(budget, lambda: 0.0)
    pieces = made(pool)
    pieces.weigh(1000)
    pieces.add({value(0, 100): Piece(memoryview(bytes(100)))})
    assert len(pieces.of(value(1, 50)).view) == 50
    assert budget.memory.used == 1150
    pieces.drop([value(0, 100)])
    assert budget.memory.used == 1050
    with pytest.raises(NoRoom):
        pieces.add({value(2, 101): Piece(memoryview(bytes(101)))})
    assert budget.memory.used == 1050
    pieces.end()
    assert budget.memory.used == 0


def test_what_went_to_disk_is_read_from_there(budget: Budget, pool: Pool) -> None:
    pieces = made(pool)
    for rank in range(3):
        pieces.add({value(rank, 10): Piece(memoryview(bytes([rank]) * 10))})
    large = pieces.of(value(3, INLINE + 1))
    assert pieces.spill()
    assert not pieces.spill()
    assert budget.memory.used == large.block.size if large.block is not None else 0
    assert [bytes(pieces.kept(value(rank, 10)).view) for rank in range(3)] == [
        bytes([rank]) * 10 for rank in range(3)
    ]
    assert pieces.kept(value(3, INLINE + 1)) is large
    pieces.end()


@pytest.mark.parametrize("at_once", [True, False])
def test_an_answer_has_no_more_of_what_went_to_disk_than_of_what_is_in_memory(
    budget: Budget, pool: Pool, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not at_once:
        monkeypatch.setattr(arranging, "AT_ONCE", 0)
    pieces, jobs = made(pool), list[tuple[Callable[[], None], Then]]()
    buffers = [value(rank, INLINE) for rank in range(MOST_INLINE // INLINE + 1)]
    for buffer in buffers:
        pieces.of(buffer).view[:4] = buffer.at.to_bytes(4, "little")
    assert pieces.spill()
    told: list[Exception | None] = []
    brings = Arranging(pieces, pool, lambda *job: jobs.append(job))
    assert brings.begin(buffers, told.append) is not at_once
    for job, then in jobs:
        job()
        then(None)
    assert told == [None] * (not at_once)
    places = {pieces.kept(buffer).block for buffer in buffers}
    assert len(places) == 1
    assert None not in places
    assert [pieces.kept(one).view[0] for one in buffers] == [one.at for one in buffers]
    pieces.end()
    assert budget.disk.used == 0


def test_what_is_read_for_another_node_stays_on_disk(budget: Budget, pool: Pool) -> None:
    pieces = made(pool)
    buffer = value(0, 10)
    assert pieces.copied(buffer) is None
    pieces.of(buffer).view[:] = b"0123456789"
    assert pieces.spill()
    before = budget.sizes
    copy = pieces.copied(buffer)
    assert copy is not None
    assert copy.block is not None
    assert bytes(copy.view) == b"0123456789"
    pool.drop(copy.block)
    pool.end_swarm("swarm")
    assert budget.sizes == before
    assert bytes(pieces.take_out([buffer])[buffer].view) == b"0123456789"
    assert budget.disk.used == 0


def test_a_file_stays_while_it_is_read(budget: Budget, pool: Pool) -> None:
    pieces = made(pool)
    pieces.of(value(0, 10)).view[:] = b"0123456789"
    pieces.spill()
    reading, found = pieces.reading(value(0, 10)), bytearray(10)
    pieces.end()
    reading.read(memoryview(found))
    assert found == b"0123456789"
    assert budget.disk.used > 0
    reading.end()
    assert budget.disk.used == 0


@pytest.mark.parametrize(
    ("sizes", "crowded"),
    [
        ([100] * 100, 0),
        ([INLINE] * (MOST_INLINE // INLINE), 0),
        ([INLINE] * (MOST_INLINE // INLINE + 1), MOST_INLINE // INLINE + 1),
        ([MIB] * MAX_FDS, 0),
        ([MIB] * (MAX_FDS + 6), 7),
        ([INLINE] * 4 + [MIB] * MAX_FDS, 5),
    ],
)
def test_an_answer_s_values_are_brought_together_as_far_as_they_must(
    budget: Budget, pool: Pool, sizes: list[int], crowded: int
) -> None:
    pieces = made(pool)
    buffers = [value(rank, size) for rank, size in enumerate(sizes)]
    for buffer in buffers:
        pieces.of(buffer).view[:4] = buffer.at.to_bytes(4, "little")
    found = pieces.crowded(buffers)
    assert len(found) == crowded
    if found:
        block, moved = pieces.room_for(found)
        for buffer, piece in moved.items():
            piece.view[:] = pieces.of(buffer).view
            pool.hold(block)
            pieces.replace(buffer, piece)
        pool.drop(block)
        assert not pieces.crowded(buffers)
    for buffer in buffers:
        piece = pieces.kept(buffer)
        first = bytes(piece.view[:4])
        assert int.from_bytes(first, "little") == buffer.at
        if piece.block is not None:
            assert os.pread(piece.block.fd, 4, piece.offset) == first
    pieces.end()
