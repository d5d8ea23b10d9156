"""What the values of a collective lie in: kept while a call needs them, and counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta.light.wire import MAX_FDS
from manta.node.plane import value_files
from manta.node.plane.collectives import memory
from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.pieces import INLINE, MOST_INLINE, Piece, Pieces
from manta.node.plane.collectives.spill import Spill
from manta.node.plane.parcels import NoRoom
from manta.transports.collectives.plans import VALUE, Buffer
from manta.transports.collectives.spreading import share_of
from manta.transports.exchange.messages import Parcel

MIB = 1 << 20


class Budget:
    """Of memory and disk, whose pool this is."""

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most
        self.size = self.on_disk = 0
        self.pool = Pool(self, lambda: 0.0)

    def take_room(self, size: int) -> None:
        self.pool.reclaim(lambda: self.size + size > self.most)
        if self.size + size > self.most:
            raise NoRoom(f"{size} more than {self.most}")
        self.size += size

    def count(self, size: int) -> None:
        self.size += size

    def give_room(self, size: int) -> None:
        self.size -= size

    def take_file(self, size: int) -> int:
        self.on_disk += size
        return value_files.nameless(self.folder, size)

    def give_disk(self, size: int) -> None:
        self.on_disk -= size


@pytest.fixture
def budget(tmp_path: Path) -> Iterator[Budget]:
    made = Budget(tmp_path, 200 * MIB)
    yield made
    made.pool.close()
    assert (made.size, made.on_disk) == (0, 0)


def value(rank: int, size: int) -> Buffer:
    return Buffer(VALUE, rank, size)


def made(budget: Budget, released: list[Parcel] | None = None) -> Pieces:
    release = [] if released is None else released
    return Pieces("swarm", budget.pool, Spill(budget.pool), release.append)


def test_a_parcel_is_released_with_the_last_that_lies_in_it(budget: Budget) -> None:
    released: list[Parcel] = []
    pieces = made(budget, released)
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
    with pytest.raises(LookupError, match="not kept any more"):
        pieces.kept(shares[0])


def test_small_values_count_until_they_are_dropped(
    budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LEAST_SMALL", 1150)
    budget.most = 1000
    pieces = made(budget)
    pieces.weigh(1000)
    pieces.add({value(0, 100): Piece(memoryview(bytes(100)))})
    assert len(pieces.of(value(1, 50)).view) == 50
    assert budget.size == 1150
    pieces.drop([value(0, 100)])
    assert budget.size == 1050
    with pytest.raises(NoRoom):
        pieces.add({value(2, 101): Piece(memoryview(bytes(101)))})
    assert budget.size == 1050
    pieces.end()
    assert budget.size == 0


def test_what_went_to_disk_is_read_from_there(budget: Budget) -> None:
    pieces = made(budget)
    for rank in range(3):
        pieces.add({value(rank, 10): Piece(memoryview(bytes([rank]) * 10))})
    large = pieces.of(value(3, INLINE + 1))
    assert pieces.spill()
    assert not pieces.spill()
    assert budget.size == large.block.size if large.block is not None else 0
    assert [bytes(pieces.kept(value(rank, 10)).view) for rank in range(3)] == [
        bytes([rank]) * 10 for rank in range(3)
    ]
    assert pieces.kept(value(3, INLINE + 1)) is large
    pieces.end()


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
    budget: Budget, sizes: list[int], crowded: int
) -> None:
    pieces = made(budget)
    buffers = [value(rank, size) for rank, size in enumerate(sizes)]
    for buffer in buffers:
        pieces.of(buffer).view[:4] = buffer.at.to_bytes(4, "little")
    found = pieces.crowded(buffers)
    assert len(found) == crowded
    if found:
        block, moved = pieces.room_for(found)
        for buffer, piece in moved.items():
            piece.view[:] = pieces.of(buffer).view
            budget.pool.hold(block)
            pieces.replace(buffer, piece)
        budget.pool.drop(block)
        assert not pieces.crowded(buffers)
    for buffer in buffers:
        piece = pieces.kept(buffer)
        first = bytes(piece.view[:4])
        assert int.from_bytes(first, "little") == buffer.at
        if piece.block is not None:
            assert os.pread(piece.block.fd, 4, piece.offset) == first
    pieces.end()
