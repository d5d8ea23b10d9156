"""Blobs in sealed memory."""

from __future__ import annotations

import fcntl
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from manta.transports.blobs.digests import check_digest, digest_of
from manta.transports.blobs.sources import ViewSource, mapped
from manta.transports.blobs.writer import BlobWriter, put
from manta.transports.errors import BlobMissing, BlobRefused, DepotFull, LocalTransportError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from manta.transports.blobs.file_depot import FileDepot
    from manta.transports.blobs.interface import Sink, Source
    from manta.transports.interface import Buffer


@dataclass(slots=True)
class _Entry:
    fd: int
    size: int
    pins: int = 0
    view: memoryview | None = None


class MemoryDepot:
    """Blobs in sealed memfds: at most `most` of them and `budget` bytes; Linux only.

    A blob holds one descriptor, and a second one once it was read through a source.

    May be used from any thread. The least recently used blob makes room for a new one, unless
    it is pinned. Memory of a blob that is open or mapped stays in use, evicted or not.
    """

    def __init__(self, budget: int, most: int = 1024) -> None:
        if not hasattr(os, "memfd_create"):
            raise LocalTransportError("a MemoryDepot needs Linux: use a FileDepot here")
        self._budget = budget
        self._most = most
        self.used = 0  # bytes, including those that are being written
        self._drafts = 0  # blobs that are being written
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first
        self._lock = threading.Lock()

    def __contains__(self, digest: str) -> bool:
        return digest in self._entries

    def __iter__(self) -> Iterator[str]:
        """The digests of all blobs."""
        with self._lock:
            return iter(list(self._entries))

    def size(self, digest: str) -> int:
        """In bytes. Raises BlobMissing."""
        with self._lock:
            return self._entry(digest).size

    def source(self, digest: str) -> Source:
        with self._lock:
            entry = self._entry(digest)
            if entry.view is None:  # kept, because each new mapping faults its pages in again
                entry.view = mapped(entry.fd, entry.size)
            return ViewSource(entry.view)

    def sink(self, digest: str, size: int) -> Sink | None:
        with self._lock:
            if digest in self._entries:
                self._entries.move_to_end(digest)
                return None
        return self.draft(digest, size)

    def draft(self, digest: str, size: int) -> BlobWriter:
        """A sink, also where the blob is here. Raises BlobRefused."""
        check_digest(digest)
        with self._lock:
            self._make_room(size)
            self.used += size
            self._drafts += 1
        try:
            fd = os.memfd_create("manta-blob", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            self._undraft(size)
            raise DepotFull(str(self.refusal(digest, size, error))) from error
        return BlobWriter(self, fd, digest, size)

    def put(self, *parts: Buffer) -> str:
        """Keep the concatenated buffers as a blob; returns its digest. Raises BlobRefused."""
        return put(self, parts)

    def adopt(self, fd: int, size: int) -> str:
        """Seal and keep a memfd that was filled elsewhere; returns its digest.

        Owns the descriptor from here on, even on an error. Raises BlobRefused when it is not a
        memfd of that size, is still mapped for writing, or when there is no room.
        """
        try:
            try:
                fcntl.fcntl(fd, fcntl.F_GET_SEALS)
            except OSError as error:
                raise BlobRefused("the descriptor is not of a memfd: share another") from error
            _seal(fd)
            if os.fstat(fd).st_size != size:
                raise BlobRefused(
                    f"the memfd has {os.fstat(fd).st_size} bytes, and {size} were announced"
                )
            digest = digest_of(mapped(fd, size))
            with self._lock:
                if digest in self._entries:
                    self._entries.move_to_end(digest)
                    return digest
                self._make_room(size)
                self.used += size
                self._entries[digest] = _Entry(fd, size)
                fd = -1
            return digest
        finally:
            if fd >= 0:
                os.close(fd)

    def open(self, digest: str) -> int:
        """A descriptor of the sealed memfd, which the caller closes. Raises BlobMissing."""
        with self._lock:
            return os.dup(self._entry(digest).fd)

    def pin(self, digest: str) -> None:
        """Keep the blob until `unpin` was called as often. Raises BlobMissing."""
        with self._lock:
            self._entry(digest).pins += 1

    def unpin(self, digest: str) -> None:
        """Raises BlobMissing."""
        with self._lock:
            self._entry(digest).pins -= 1

    def delete(self, digest: str) -> bool:
        """Delete a blob, pinned or not; False when it was not here."""
        with self._lock:
            if digest not in self._entries:
                return False
            self._drop(digest)
            return True

    def let_go(self, digest: str) -> bool:
        """Delete a blob unless it is pinned; False when it was not here, or is pinned."""
        with self._lock:
            entry = self._entries.get(digest)
            if entry is None or entry.pins:
                return False
            self._drop(digest)
            return True

    def trim(self, size: int) -> None:
        """Drop unpinned blobs, least recently used first, until `size` bytes are left."""
        with self._lock:
            for digest in [digest for digest, entry in self._entries.items() if not entry.pins]:
                if self.used <= size:
                    return
                self._drop(digest)

    def copy_to(self, depot: FileDepot, digest: str) -> None:
        """Copy the blob into another depot. Raises BlobMissing, BlobRefused."""
        fd = self.open(digest)
        try:
            depot.put_sealed(fd, digest, os.fstat(fd).st_size)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Drop all blobs."""
        with self._lock:
            for digest in list(self._entries):
                self._drop(digest)

    def _entry(self, digest: str) -> _Entry:
        entry = self._entries.get(digest)
        if entry is None:
            raise BlobMissing(f"the blob {digest[:12]} is not in memory")
        self._entries.move_to_end(digest)
        return entry

    def _make_room(self, size: int) -> None:
        while self.used + size > self._budget or self._count >= self._most:
            victim = next((d for d, entry in self._entries.items() if not entry.pins), None)
            if victim is None:
                raise DepotFull(
                    f"no room for a blob of {size} bytes in memory: {self.used} of "
                    f"{self._budget} bytes and {self._count} of {self._most} places are in use; "
                    "try again later, or raise the limit"
                )
            self._drop(victim)

    @property
    def _count(self) -> int:
        return len(self._entries) + self._drafts

    def _undraft(self, size: int) -> None:
        with self._lock:
            self.used -= size
            self._drafts -= 1

    def _drop(self, digest: str) -> None:
        entry = self._entries.pop(digest)
        self.used -= entry.size
        os.close(entry.fd)

    def publish(self, writer: BlobWriter) -> None:
        """For the writer only."""
        _seal(writer.fd)
        with self._lock:
            self._drafts -= 1
            if writer.digest in self._entries:  # another writer was faster
                os.close(writer.fd)
                self.used -= writer.size
            else:
                self._entries[writer.digest] = _Entry(writer.fd, writer.size)
            writer.fd = -1

    def discard(self, writer: BlobWriter) -> None:
        """For the writer only."""
        self._undraft(writer.size)

    def refusal(self, digest: str, size: int, error: OSError) -> BlobRefused:
        """For the writer only."""
        return BlobRefused(
            f"could not keep the blob {digest[:12]} of {size} bytes in memory: {error.strerror}"
        )


def _seal(fd: int) -> None:
    """Make a memfd immutable. Raises BlobRefused."""
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & seals == seals:
        return
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
    except OSError as error:
        raise BlobRefused(
            f"the memfd cannot be sealed ({error.strerror}): whoever filled it must unmap it "
            "first, and the memfd must allow sealing"
        ) from error
