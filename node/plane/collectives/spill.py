"""Files for small values of a swarm's calls that are over: one after the other, many in each.

Another thread writes, so that a slow disk holds up nobody who waits for the plane. Until then, and
where the disk takes them not, the values are read from memory. A file is given back when nothing of
it is kept any more.
"""

from __future__ import annotations

import errno
import logging
import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from manta.node.plane.collectives.memory import Pool
from manta.node.plane.parcels import NoRoom

FILE = 16 << 20
"""Bytes of a file, or of one value that is larger."""
BEHIND = 16 << 20
"""Bytes of all swarms that are yet to be written, in memory that is given back before. What would
be more is written at once, though all else waits for it: else a disk that is slower than calls come
would have them refused."""

log = logging.getLogger("manta.node.plane")

OnDisk = Callable[[Callable[[], None], Callable[[Exception | None], None]], None]
"""Has a job done that waits for the disk, on another thread; the second is called on this one."""


@dataclass(eq=False)
class _File:
    fd: int
    size: int
    used: int = 0
    kept: int = 0
    """How many values of it are wanted yet."""
    written_to: int = 0
    """How many are being written."""

    def __post_init__(self) -> None:
        self.close = weakref.finalize(self, os.close, self.fd)


@dataclass(eq=False)
class Spilled:
    """Where a value is."""

    file: _File
    start: int
    size: int
    view: memoryview | None
    """Its bytes, until they are in the file."""
    holds: int = 1
    is_counted: bool = False
    """Does it stay in memory, as the disk did not take it?"""


class Spill:
    def __init__(self, pool: Pool, swarm_id: str, on_disk: OnDisk) -> None:
        self._pool = pool
        self._swarm_id = swarm_id
        self._on_disk = on_disk
        self._last: _File | None = None
        """The one that is written to."""
        self._has_failed = False
        """Did the disk not take what was written last? Then it is tried at once, and refused."""

    def write(self, values: Sequence[memoryview]) -> list[Spilled]:
        """Where they are from now on. Raises NoRoom; then nothing of them is kept."""
        size = sum(map(len, values))
        places = list[Spilled]()
        try:
            for value in values:
                places.append(self._place(value))
            if self._has_failed or self._pool.unwritten + size > BEHIND:
                self._write_at_once(places)
                return places
        except NoRoom:
            for place in places:
                self.drop(place)
            raise
        self._pool.unwritten += size
        for place in places:
            place.file.written_to += 1
        self._on_disk(partial(_fill, places), partial(self._was_written, places))
        return places

    def _place(self, value: memoryview) -> Spilled:
        """Raises NoRoom."""
        file = self._last
        if file is None or file.size - file.used < len(value):
            size = max(FILE, len(value))
            self._last = file = _File(self._pool.take_file(size, self._swarm_id), size)
        place = Spilled(file, file.used, len(value), value)
        file.used += len(value)
        file.kept += 1
        return place

    def _write_at_once(self, places: Sequence[Spilled]) -> None:
        """Raises NoRoom."""
        try:
            _fill(places)
        except OSError as error:
            size = sum(place.size for place in places)
            raise NoRoom(f"The disk takes no values of {size} bytes: {error}.") from error
        self._has_failed = False
        for place in places:
            place.view = None

    def _was_written(self, places: Sequence[Spilled], error: Exception | None) -> None:
        if error is not None:
            self._has_failed = True
            log.warning("What came of collectives stays in memory: %s", str(error))
        for place in places:
            self._pool.unwritten -= place.size
            if error is None:
                place.view = None
            elif place.holds:
                place.is_counted = True
                self._pool.count_small(place.size, self._swarm_id)
            place.file.written_to -= 1
            self._close(place.file)

    def read(self, place: Spilled, into: memoryview, at: int = 0) -> None:
        """What is there from its byte `at` on. On any thread. Raises OSError."""
        if (view := place.view) is not None:
            into[:] = view[at : at + len(into)]
            return
        start = place.start + at
        while into:
            count = os.preadv(place.file.fd, [into], start)
            if not count:
                raise OSError(errno.EIO, "A value on disk is shorter than it was")
            into, start = into[count:], start + count

    def hold(self, place: Spilled) -> None:
        """It stays until it was dropped once more."""
        place.holds += 1

    def drop(self, place: Spilled) -> None:
        """Nobody wants it any more."""
        place.holds -= 1
        if place.holds:
            return
        place.view = None
        if place.is_counted:
            self._pool.give_small(place.size, self._swarm_id)
        file = place.file
        file.kept -= 1
        if not file.kept:
            if file is self._last:
                self._last = None
            self._pool.give_disk(file.size, self._swarm_id)
            self._close(file)

    def _close(self, file: _File) -> None:
        """Once nothing is kept in it, or written into it."""
        if not (file.kept or file.written_to):
            file.close()


def _fill(places: Iterable[Spilled]) -> None:
    """Those that are wanted yet. On any thread. Raises OSError."""
    for place in places:
        data, start = place.view, place.start
        while data:
            count = os.pwrite(place.file.fd, data, start)
            data, start = data[count:], start + count
