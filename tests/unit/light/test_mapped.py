"""What an attempt has mapped of its node's memory for collectives."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import pytest

from manta.light.collectives.mapped import KEPT, Mapped

PAGE = mmap.PAGESIZE


def regions() -> int:
    """Of rooms that this process has mapped."""
    return Path("/proc/self/maps").read_text().count("/memfd:a-room")


class Plane:
    """Gives a room for each number that is wanted."""

    def __init__(self) -> None:
        self.wanted = 1
        self.gone: list[int] = []
        self.told: list[int] = []

    def __call__(self, mapped: list[int]) -> tuple[dict[str, Any], list[int]]:
        self.told = mapped
        told = {"room": self.wanted, "size": PAGE, "gone": self.gone}
        if not self.wanted or self.wanted in mapped:
            return told, []
        fd = os.memfd_create("a-room")
        os.truncate(fd, PAGE)
        return told, [fd]


@pytest.fixture
def plane() -> Plane:
    return Plane()


def test_the_rooms_that_were_used_last_stay_mapped(plane: Plane) -> None:
    mapped = Mapped()
    for number in range(1, 3 * KEPT):
        plane.wanted = number
        assert mapped.room(plane)[0] == number
        assert regions() == min(number, KEPT)
    plane.wanted = first = 2 * KEPT
    mapped.room(plane)
    assert plane.told == [*range(2 * KEPT, 3 * KEPT)]
    plane.wanted = 100
    mapped.room(plane)
    mapped.room(plane)
    assert plane.told == [*range(2 * KEPT + 2, 3 * KEPT), first, 100]
    del mapped
    assert regions() == 0


def test_a_room_is_the_same_memory_each_time(plane: Plane) -> None:
    mapped = Mapped()
    mapped.room(plane)[1][:3] = b"abc"
    assert bytes(mapped.room(plane)[1][:3]) == b"abc"


def test_what_the_plane_has_given_back_is_unmapped(plane: Plane) -> None:
    mapped = Mapped()
    for plane.wanted in (1, 2, 3):
        mapped.room(plane)
    plane.gone, plane.wanted = [1, 2, 3], 0
    assert mapped.room(plane)[0] == 0
    assert regions() == 0


def test_what_is_being_written_is_not_unmapped(plane: Plane) -> None:
    mapped = Mapped()
    _, memory = mapped.room(plane)
    plane.gone, plane.wanted = [1], 2
    mapped.room(plane)
    memory[:3] = b"abc"
    assert regions() == 2


def test_another_thread_may_drop_a_room_that_the_plane_is_about_to_name(plane: Plane) -> None:
    mapped = Mapped()
    mapped.room(plane)

    def ask(known: list[int]) -> tuple[dict[str, Any], list[int]]:
        plane.wanted, plane.gone = 2, [1]
        mapped.room(plane)
        return {"room": 1, "size": PAGE, "gone": []}, []

    assert mapped.room(ask)[0] == 1
