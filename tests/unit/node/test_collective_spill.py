"""Small values on their way to disk: nobody waits for that, and none is lost where it fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manta.node.plane.collectives import memory, spill
from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.pieces import Pieces
from manta.node.plane.collectives.spill import FILE, Spill, Spilled
from manta.node.plane.parcels import NoRoom
from manta.transports.collectives.plans import VALUE, Buffer
from manta.transports.exchange.messages import Parcel
from tests.support.budgets import Budget, on_disk, shared

SIZE = 1000
BUFFERS = [Buffer(VALUE, rank, SIZE) for rank in range(3)]
TEXT = [bytes([65 + rank]) * SIZE for rank in range(3)]


class Disk:
    """Writes when it is told to."""

    def __init__(self) -> None:
        self._jobs: list[tuple[Callable[[], None], Callable[[Exception | None], None]]] = []

    def __len__(self) -> int:
        return len(self._jobs)

    def __call__(self, job: Callable[[], None], then: Callable[[Exception | None], None]) -> None:
        self._jobs.append((job, then))

    def writes(self) -> None:
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            on_disk(*job)


class Made:
    def __init__(self, folder: Path) -> None:
        self.budget = Budget(shared(3 * SIZE), 4 * FILE, folder)
        self.pool = Pool(self.budget, lambda: 0.0)
        self.disk = Disk()
        self.spill = Spill(self.pool, "s", self.disk)
        self.pieces = Pieces("s", self.pool, self.spill, list[Parcel]().append)
        for buffer, text in zip(BUFFERS, TEXT, strict=True):
            self.pieces.of(buffer).view[:] = text

    def kept(self) -> list[bytes]:
        return [bytes(self.pieces.kept(buffer).view) for buffer in BUFFERS]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    monkeypatch.setattr(memory, "LEAST_SMALL", shared(3 * SIZE))
    found = Made(tmp_path)
    yield found
    found.pieces.end()
    found.disk.writes()
    assert found.budget.sizes == (0, 0)
    assert found.pool.unwritten == 0
    found.pool.close()


def on_disk_of(place: Spilled) -> bytes:
    return os.pread(place.file.fd, place.size, place.start)


def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes nothing more."""

    def pwrite(fd: int, data: memoryview, start: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", pwrite)


def test_room_is_given_back_before_the_disk_has_taken_what_was_in_it(made: Made) -> None:
    assert made.pieces.spill()
    assert len(made.disk) == 1
    assert made.budget.sizes == (0, FILE)
    assert made.kept() == TEXT
    places = list(made.pieces._spilled.values())
    assert on_disk_of(places[0]) == bytes(SIZE)
    made.disk.writes()
    assert [on_disk_of(place) for place in places] == TEXT
    assert [place.view for place in places] == [None] * 3
    assert made.kept() == TEXT


def test_a_file_that_is_written_to_is_closed_once_that_is_over(made: Made) -> None:
    assert made.pieces.spill()
    file = next(iter(made.pieces._spilled.values())).file
    made.pieces.end()
    assert made.budget.disk.used == 0
    os.fstat(file.fd)
    made.disk.writes()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(file.fd)


def test_what_the_disk_does_not_take_stays_in_memory_and_counts(
    made: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert made.pieces.spill()
    with monkeypatch.context() as patch:
        refuse(patch)
        made.disk.writes()
    assert "stays in memory: [Errno 28] No space left on device" in caplog.text
    assert made.budget.memory.used == 3 * SIZE
    assert made.kept() == TEXT
    made.pieces.drop(BUFFERS[:1])
    assert made.budget.memory.used == 2 * SIZE


def test_after_a_failure_the_disk_is_asked_before_room_is_given_back(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place,) = made.spill.write([memoryview(b"first")])
    with monkeypatch.context() as patch:
        refuse(patch)
        made.disk.writes()
        with pytest.raises(NoRoom, match=r"takes no values of 3000 bytes: .*No space left"):
            made.pieces.spill()
    assert made.kept() == TEXT
    made.spill.drop(place)
    assert made.pieces.spill()
    assert not len(made.disk)
    assert [on_disk_of(place) for place in made.pieces._spilled.values()] == TEXT


def test_a_disk_that_is_far_behind_is_waited_for(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "BEHIND", 3 * SIZE)
    assert made.pieces.spill()
    (place,) = made.spill.write([memoryview(b"more")])
    assert len(made.disk) == 1
    assert on_disk_of(place) == b"more"
    made.spill.drop(place)
    made.disk.writes()
    assert made.kept() == TEXT
