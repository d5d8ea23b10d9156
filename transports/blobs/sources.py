"""Sources: blobs in memory, mapped or not, and in files."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

from blake3 import blake3

from manta.transports.errors import BlobCorrupt

if TYPE_CHECKING:
    from manta.transports.blobs.interface import Source
    from manta.transports.interface import Buffer

_PIECE = 1 << 20


def mapped(fd: int, size: int) -> memoryview:
    """A read-only mapping of a descriptor; it lasts as long as the view or a part of it.

    Private, because Linux before 6.7 refuses a shared mapping of a memfd that is sealed
    against writing, even a read-only one.
    """
    if not size:
        return memoryview(b"")
    return memoryview(mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ))


class ViewSource:
    """A Source over memory."""

    def __init__(self, view: memoryview) -> None:
        self.size = self.ready = len(view)
        self._view = view

    def read(self, offset: int, length: int) -> Buffer:
        return self._view[offset : offset + length]

    def close(self) -> None:
        self._view = memoryview(b"")


class FileSource:
    """A Source that owns and reads a descriptor, and maps nothing."""

    def __init__(self, fd: int, size: int | None = None) -> None:
        """`size`: of the blob, where not all of it is there yet."""
        self.fd = fd
        self.size = self.ready = os.fstat(fd).st_size if size is None else size

    def read(self, offset: int, length: int) -> Buffer:
        """Raises BlobCorrupt when the file was truncated."""
        length = min(length, self.size - offset)
        data = bytearray()
        while len(data) < length:
            piece = os.pread(self.fd, length - len(data), offset + len(data))
            if not piece:
                raise BlobCorrupt(f"a blob of {self.size} bytes was cut short")
            if len(piece) == length:
                return piece
            data += piece
        return data

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    __del__ = close


def is_whole(source: Source, digest: str) -> bool:
    """Whether what a source reads has this digest; closes it. Raises BlobCorrupt, OSError."""
    hasher = blake3()
    try:
        for offset in range(0, source.size, _PIECE):
            hasher.update(source.read(offset, _PIECE))
    finally:
        source.close()
    return hasher.hexdigest() == digest
