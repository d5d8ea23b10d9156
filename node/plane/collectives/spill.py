"""Files for small values of a swarm's calls that are over: one after the other, many in each.

A file is given back when nothing of it is kept any more.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from manta.node.plane.collectives.memory import Pool
from manta.node.plane.parcels import NoRoom

FILE = 16 << 20
"""Bytes of a file, or of one value that is larger."""


@dataclass(eq=False)
class _File:
    fd: int
    size: int
    used: int = 0
    kept: int = 0
    """How many values of it are wanted yet."""


class Spilled(NamedTuple):
    """Where a value is."""

    file: _File
    start: int
    size: int


class Spill:
    def __init__(self, pool: Pool, swarm_id: str) -> None:
        self._pool = pool
        self._swarm_id = swarm_id
        self._last: _File | None = None
        """The one that is written to."""

    def write(self, values: Sequence[memoryview]) -> list[Spilled]:
        """Where they are from now on. Raises NoRoom; then nothing of them is kept."""
        written: list[Spilled] = []
        try:
            for value in values:
                written.append(self._write(value))
        except NoRoom:
            for one in written:
                self.drop(one)
            raise
        return written

    def _write(self, value: memoryview) -> Spilled:
        """Raises NoRoom."""
        file = self._last
        if file is None or file.size - file.used < len(value):
            size = max(FILE, len(value))
            self._last = file = _File(self._pool.take_file(size, self._swarm_id), size)
        place = Spilled(file, file.used, len(value))
        try:
            _write(file.fd, value, file.used)
        except OSError as error:
            if not file.kept:
                self._end(file)
            raise NoRoom(f"The disk takes no value of {len(value)} bytes: {error}.") from error
        file.used += len(value)
        file.kept += 1
        return place

    def read(self, place: Spilled, into: memoryview, at: int = 0) -> None:
        """What is there from its byte `at` on. On any thread. Raises OSError."""
        start = place.start + at
        while into:
            count = os.preadv(place.file.fd, [into], start)
            if not count:
                raise OSError(errno.EIO, "A value on disk is shorter than it was")
            into, start = into[count:], start + count

    def hold(self, place: Spilled) -> None:
        """It stays until it was dropped once more."""
        place.file.kept += 1

    def drop(self, place: Spilled) -> None:
        """Nobody wants it any more."""
        file = place.file
        file.kept -= 1
        if not file.kept:
            self._end(file)

    def _end(self, file: _File) -> None:
        if file is self._last:
            self._last = None
        os.close(file.fd)
        self._pool.give_disk(file.size, self._swarm_id)


def _write(fd: int, data: memoryview, start: int) -> None:
    while data:
        count = os.pwrite(fd, data, start)
        data, start = data[count:], start + count
