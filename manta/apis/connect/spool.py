"""The SDK's depot for large values in transit on the bulk plane.

A value to push is read from its encoded parts, without a copy of the whole. What is fetched is
written to an unnamed file and handed out as a memory map of it: memory is used only as the value
is read, and the disk space is freed with the last view.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from bisect import bisect_right
from collections import defaultdict
from typing import TYPE_CHECKING

from blake3 import blake3

from manta.transports.errors import BlobCorrupt, BlobMissing, BlobRefused

if TYPE_CHECKING:
    from manta.transports.codec.values import Encoded
    from manta.transports.interface import Buffer

ARENA = 16 * 1024 * 1024
"""Bytes of a file that small values share; each file costs a descriptor while it is used."""


class Spool:
    """Thread-safe. Each fetch of a blob gets its own copy, so that its view is writable."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offered: defaultdict[str, list[Encoded]] = defaultdict(list)
        """By digest, one for each push in progress."""
        self._arrived: defaultdict[str, list[memoryview]] = defaultdict(list)
        self._arena: _Arena | None = None

    def offer(self, digest: str, encoded: Encoded) -> None:
        """Allows the blob to be pushed; its arrays must not change until `withdraw`."""
        with self._lock:
            self._offered[digest].append(encoded)

    def withdraw(self, digest: str, encoded: Encoded) -> None:
        """Ends one offer; other offers of this digest stay."""
        with self._lock:
            offered = self._offered.get(digest, [])
            for place, other in enumerate(offered):
                if other is encoded:
                    del offered[place]
                    break
            if not offered:
                self._offered.pop(digest, None)

    def take(self, digest: str) -> memoryview:
        """Returns one of the copies that were fetched, for the caller alone."""
        with self._lock:
            copies = self._arrived[digest]
            view = copies.pop()
            if not copies:
                del self._arrived[digest]
            return view

    def close(self) -> None:
        """Drops what nobody took; values that were taken stay readable."""
        with self._lock:
            self._offered.clear()
            self._arrived.clear()
            self._arena = None

    # --- Depot, called on the bulk thread ------------------------------------------------

    def source(self, digest: str) -> _PartsSource:
        with self._lock:
            offered = self._offered.get(digest)
        if not offered:
            raise BlobMissing(f"the blob {digest[:12]} is not offered by this process.")
        return _PartsSource(offered[-1])  # usually the last to be withdrawn

    def sink(self, digest: str, size: int) -> _Region:
        with self._lock:
            if self._arena is None or not self._arena.has_room(size):
                self._arena = _Arena(max(size, ARENA))
            return _Region(self, self._arena, self._arena.take(size), digest, size)

    def arrived(self, digest: str, view: memoryview) -> None:
        """Called by a region when it is complete."""
        with self._lock:
            self._arrived[digest].append(view)


class _Arena:
    """An unnamed file that is handed out from front to back."""

    def __init__(self, size: int) -> None:
        self._fd, path = tempfile.mkstemp(prefix="manta-")
        os.unlink(path)
        os.ftruncate(self._fd, size)
        self._size = size
        self._next = 0
        self._map = mmap.mmap(self._fd, size)

    def __del__(self) -> None:
        os.close(self._fd)  # the mapping has its own while there are views

    def has_room(self, size: int) -> bool:
        return self._next + size <= self._size

    def take(self, size: int) -> int:
        offset = self._next
        self._next += -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        return offset

    def write(self, offset: int, data: Buffer) -> None:
        """Writes through the file, where a full disk is an error; in the mapping it is a crash."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, offset)
            view, offset = view[written:], offset + written

    def view(self, offset: int, size: int) -> memoryview:
        return memoryview(self._map)[offset : offset + size]


class _Region:
    """A Sink."""

    def __init__(self, spool: Spool, arena: _Arena, offset: int, digest: str, size: int) -> None:
        self._spool = spool
        self._arena = arena
        self._offset = offset
        self._digest = digest
        self._size = size
        self._written = 0
        self._hasher = blake3()

    @property
    def written(self) -> int:
        return self._written

    def write(self, data: Buffer) -> None:
        length = memoryview(data).nbytes
        if self._written + length > self._size:
            raise BlobCorrupt(f"the blob {self._digest[:12]} has more than {self._size} bytes.")
        self._hasher.update(data)
        try:
            self._arena.write(self._offset + self._written, data)
        except OSError as error:
            raise BlobRefused(
                f"no room for a value of {self._size} bytes in {tempfile.gettempdir()} "
                f"({error.strerror}): make room there, or set TMPDIR."
            ) from error
        self._written += length

    def commit(self) -> None:
        if self._written != self._size or self._hasher.hexdigest() != self._digest:
            # What moves is sealed: it was damaged before.
            raise BlobCorrupt(
                f"the blob {self._digest[:12]} of {self._size} bytes is damaged where it is kept: "
                "its value is lost; restore a backup (manta manager restore), or compute it again."
            )
        self._spool.arrived(self._digest, self._arena.view(self._offset, self._size))

    def abort(self) -> None:
        """Leaves the region unused until the arena is dropped."""


class _PartsSource:
    """A Source over the buffers of an encoded value."""

    def __init__(self, encoded: Encoded) -> None:
        self.size = self.ready = encoded.nbytes
        self._parts = [memoryview(part).cast("B") for part in encoded.parts()]
        self._starts = [0]
        for part in self._parts:
            self._starts.append(self._starts[-1] + len(part))

    def read(self, offset: int, length: int) -> Buffer:
        end = min(offset + length, self.size)
        if offset >= end:
            return b""
        index = bisect_right(self._starts, offset) - 1
        found = []
        while offset < end:
            start = self._starts[index]
            piece = self._parts[index][offset - start : end - start]
            if len(piece):
                found.append(piece)
            offset += len(piece)
            index += 1
        return found[0] if len(found) == 1 else b"".join(found)

    def close(self) -> None:
        self._parts = []
