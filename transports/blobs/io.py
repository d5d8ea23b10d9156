"""What both depots are made of: digests, a source that maps, a sink that hashes as it writes."""

from __future__ import annotations

import mmap
import os
import re
from typing import TYPE_CHECKING, Protocol

from blake3 import blake3

from manta.transports.errors import BlobCorrupt, BlobRefused

if TYPE_CHECKING:
    from manta.transports.bulk.interface import Sink
    from manta.transports.interface import Buffer

DIGEST = re.compile("[0-9a-f]{64}")
PIECE = 1 << 20  # bytes copied at a time


def digest_of(*parts: Buffer) -> str:
    """The digest of these buffers, one after the other."""
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def check_digest(digest: str) -> str:
    """The digest, if it is one; file names are made of it. Raises BlobRefused."""
    if not DIGEST.fullmatch(digest):
        raise BlobRefused(f"{digest[:80]!r} is no digest: expected 64 hexadecimal characters")
    return digest


def mapped(fd: int, size: int) -> memoryview:
    """The descriptor's bytes, read-only; they stay mapped while the view, or a part of it, lives.

    Private, because a shared mapping of what is sealed against writing is refused by Linux
    before 6.7, although it is read-only.
    """
    if not size:
        return memoryview(b"")
    return memoryview(mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ))


class ViewSource:
    """A Source over memory."""

    def __init__(self, view: memoryview) -> None:
        self.size = len(view)
        self._view = view

    def read(self, offset: int, length: int) -> Buffer:
        return self._view[offset : offset + length]

    def close(self) -> None:
        self._view = memoryview(b"")


class FileSource:
    """A Source over a descriptor that is its own from here on; nothing of it is mapped."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = os.fstat(fd).st_size

    def read(self, offset: int, length: int) -> Buffer:
        """Raises BlobCorrupt when somebody has cut the file short."""
        length = min(length, self.size - offset)
        data = bytearray()
        while len(data) < length:
            piece = os.pread(self._fd, length - len(data), offset + len(data))
            if not piece:
                raise BlobCorrupt(f"a blob of {self.size} bytes was cut short")
            if len(piece) == length:
                return piece
            data += piece
        return data

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    __del__ = close


class Keeper(Protocol):
    """The depot's side of a blob that is being written."""

    def publish(self, writer: BlobWriter) -> None:
        """Take the writer's descriptor over. Raises BlobRefused, and then has not."""

    def discard(self, writer: BlobWriter) -> None:
        """Free what the writer took."""

    def refusal(self, digest: str, size: int, error: OSError) -> BlobRefused: ...


class BlobWriter:
    """A Sink over a descriptor; what becomes of it at the end is its depot's business."""

    def __init__(self, depot: Keeper, fd: int, digest: str, size: int) -> None:
        self._depot = depot
        self.fd = fd
        self.digest = digest
        self.size = size
        self.path = ""  # of a file that has no place yet
        self._written = 0
        self._hasher = blake3()

    def write(self, data: Buffer) -> None:
        """Raises BlobRefused when there is no room, BlobCorrupt when the blob is overlong."""
        view = memoryview(data)
        if self._written + len(view) > self.size:
            raise BlobCorrupt(f"the blob {self.digest[:12]} has more than its {self.size} bytes")
        self._hasher.update(view)
        self._written += len(view)
        try:
            while view:
                view = view[os.write(self.fd, view) :]
        except OSError as error:
            raise self._depot.refusal(self.digest, self.size, error) from error

    @property
    def hashed(self) -> str:
        """The digest of what was written so far."""
        return self._hasher.hexdigest()

    def commit(self) -> None:
        found = self.hashed
        if self._written != self.size or found != self.digest:
            self.abort()
            raise BlobCorrupt(
                f"the blob {self.digest[:12]} of {self.size} bytes arrived as {found[:12]} of "
                f"{self._written} bytes, and was thrown away: fetch it from elsewhere"
            )
        self.publish()

    def publish(self) -> None:
        """Publish what was written, whose digest is known to be right."""
        try:
            self._depot.publish(self)
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        if self.fd >= 0:
            self._depot.discard(self)
            os.close(self.fd)
            self.fd = -1


def write_all(sink: Sink | None, parts: tuple[Buffer, ...]) -> None:
    if sink is None:
        return
    try:
        for part in parts:
            view = memoryview(part).cast("B")
            for start in range(0, len(view), PIECE):
                sink.write(view[start : start + PIECE])
    except BaseException:
        sink.abort()
        raise
    sink.commit()
