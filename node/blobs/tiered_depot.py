"""The values that tasks write and read: in memory while they are small and there is room.

All else lies in files, which the page cache holds as long as there is memory for it. A task
maps its value privately either way. A file may be changed by who owns it, unlike a sealed
memfd: so the node never maps one, or a task that cuts it short would kill the node.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from manta.transports.blobs.writer import PIECE, copy
from manta.transports.errors import BlobMissing, DepotFull

if TYPE_CHECKING:
    from manta.transports.blobs.file_depot import FileDepot
    from manta.transports.blobs.interface import Sink, Source
    from manta.transports.blobs.memory_depot import MemoryDepot
    from manta.transports.blobs.writer import BlobWriter
    from manta.transports.interface import Buffer

log = logging.getLogger(__name__)

MOST_FILES = 4096
"""Files that stay between attempts."""


class TieredDepot:
    """A MemoryDepot for blobs of at most `largest` bytes, and a FileDepot for the others.

    `files` is emptied, as nothing in it outlives the node's process. From any thread.
    """

    def __init__(self, memory: MemoryDepot, files: FileDepot, largest: int) -> None:
        self.largest = largest
        self._memory = memory
        self._files = files
        self._pins: dict[str, int] = {}
        """Of files."""
        self._whole: dict[str, tuple[int, int, int]] = {}
        """What a file was like when its bytes had its digest."""
        self._has_files = False
        self._lock = threading.Lock()
        for digest in files:
            files.delete(digest)

    def __contains__(self, digest: str) -> bool:
        return digest in self._memory or digest in self._files

    def __iter__(self) -> Iterator[str]:
        """The digests of all blobs."""
        yield from self._memory
        yield from self._files

    def size(self, digest: str) -> int:
        """In bytes. Raises BlobMissing."""
        try:
            return self._memory.size(digest)
        except BlobMissing:
            return self._files.size(digest)

    def source(self, digest: str) -> Source:
        try:
            return self._memory.source(digest)
        except BlobMissing:
            return self._files.unmapped(digest)

    def open(self, digest: str) -> int:
        """A descriptor to map privately; the caller closes it.

        Of an encrypted file memory is filled. Raises BlobMissing, BlobRefused where there is no
        room for it, BlobCorrupt.
        """
        try:
            return self._memory.open(digest)
        except BlobMissing:
            if self._files.sealer is None:
                return self._files.open(digest)
        with contextlib.closing(self._files.unmapped(digest)) as source:
            sink = self._memory.sink(digest, source.size)
            if sink is not None:
                copy(source, sink)
        return self._memory.open(digest)

    # Keeping.

    def sink(self, digest: str, size: int) -> Sink | None:
        return None if digest in self else self.draft(digest, size)

    def draft(self, digest: str, size: int) -> BlobWriter:
        """A sink, whether or not the blob is here. Raises BlobRefused."""
        if size <= self.largest:
            try:
                return self._memory.draft(digest, size)
            except DepotFull:
                pass  # what is read now fills the memory
        return self._make_room(size).draft(digest, size)

    def put(self, *parts: Buffer) -> str:
        """Keep a blob made of these buffers; returns its digest. Raises BlobRefused."""
        size = sum(memoryview(part).nbytes for part in parts)
        if size <= self.largest:
            try:
                return self._memory.put(*parts)
            except DepotFull:
                pass
        return self._make_room(size).put(*parts)

    def put_stream(self, read: Callable[[int], bytes | None], size: int) -> str:
        """Keep what `read(most)` gives, in a file; returns its digest.

        Raises BlobRefused, and BlobCorrupt where it ends before `size` bytes.
        """
        return self._make_room(size).put_stream(read, size)

    def adopt(self, fd: int, size: int) -> str:
        """As MemoryDepot does; a copy in a file where the memory has no room."""
        spare = os.dup(fd)
        try:
            return self._memory.adopt(fd, size)
        except DepotFull:
            with open(spare, "rb", buffering=0, closefd=False) as file:
                file.seek(0)
                return self.put_stream(file.read, size)
        finally:
            os.close(spare)

    def copy_to(self, depot: FileDepot, digest: str) -> None:
        """Keep the blob in a folder as well. Raises BlobMissing, BlobRefused."""
        try:
            self._memory.copy_to(depot, digest)
        except BlobMissing:
            depot.put_link(self._files, digest)

    def take_from(self, depot: FileDepot, digest: str) -> None:
        """Keep a folder's blob as a value as well. Raises BlobMissing, BlobRefused."""
        self._make_room(depot.size(digest)).put_link(depot, digest)

    def save(self, digest: str, write: Callable[[Buffer], object]) -> None:
        """Write the blob elsewhere. Raises BlobMissing, BlobCorrupt, OSError."""
        source = self.source(digest)
        try:
            for offset in range(0, source.size, PIECE):
                write(source.read(offset, PIECE))
        finally:
            source.close()

    def has_room(self, size: int) -> bool:
        """Whether the disk has so many bytes left, where memory is not to hold them."""
        return size <= self.largest or size <= self._make_room(size).free

    def drop_damaged(self, digest: str, *, again: bool = False) -> bool:
        """Delete a file whose bytes no longer have its digest; returns whether it was one.

        It is hashed if it is not as it was when it was hashed last, or `again`. Pins stay with
        the digest.
        """
        try:
            found = os.stat(self._files.place(digest))
            seen = found.st_ino, found.st_mtime_ns, found.st_size
            if self._whole.get(digest) == seen and not again:
                return False
            if self._files.is_whole(digest):
                with self._lock:
                    if digest in self._files:
                        self._whole[digest] = seen
                return False
        except (OSError, BlobMissing):
            return False
        log.error("%s is damaged: it is deleted", self._files.path(digest))
        with self._lock:
            return self._delete_file(digest)

    # Letting go.

    def pin(self, digest: str) -> None:
        """Keep the blob until as many calls of `unpin`. Raises BlobMissing."""
        with self._lock:
            if digest in self._files:
                self._pins[digest] = self._pins.get(digest, 0) + 1
                return
        self._memory.pin(digest)

    def unpin(self, digest: str) -> None:
        """Raises BlobMissing."""
        with self._lock:
            pins = self._pins.pop(digest, 0)
            if pins > 1:
                self._pins[digest] = pins - 1
        if not pins:
            self._memory.unpin(digest)

    def delete(self, digest: str) -> bool:
        """Whether the blob was there. Pinned or not, it goes."""
        with self._lock:
            self._pins.pop(digest, None)
            return self._memory.delete(digest) | self._delete_file(digest)

    def let_go(self, digest: str) -> bool:
        """Delete a blob unless it is pinned; False when it was not here, or is pinned."""
        with self._lock:
            in_files = digest not in self._pins and self._delete_file(digest)
        return self._memory.let_go(digest) or in_files

    def trim(self, memory: int, files: int) -> None:
        """Forget what is not pinned until so many bytes are left of either, and of files
        MOST_FILES."""
        self._memory.trim(memory)
        if self._has_files:
            with self._lock:
                sizes = list(map(self._files.size, self._files))
                self._drop_files(sum(sizes) - files, len(sizes) - MOST_FILES)

    def close(self) -> None:
        """Forget all blobs."""
        self._memory.close()
        for digest in self._files:
            self._files.delete(digest)

    def _make_room(self, size: int) -> FileDepot:
        """Files that nobody reads go where the disk has no room for so many bytes more."""
        self._has_files = True
        with self._lock:
            self._drop_files(size - self._files.free)
        return self._files

    def _drop_files(self, size: int, count: int = 0) -> None:
        """Delete files that are not pinned, the oldest first, until so many bytes and files are
        gone.

        The lock is held, without which no file is deleted.
        """
        if size <= 0 and count <= 0:
            return
        place = self._files.place
        for digest in sorted(self._files, key=lambda each: os.stat(place(each)).st_mtime):
            if size <= 0 and count <= 0:
                return
            if digest not in self._pins:
                size -= self._files.size(digest)
                count -= 1
                self._delete_file(digest)

    def _delete_file(self, digest: str) -> bool:
        self._whole.pop(digest, None)
        return self._files.delete(digest)
