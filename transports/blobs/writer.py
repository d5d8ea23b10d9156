"""The sink of both depots: hashes what it writes, and has its depot publish it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from blake3 import blake3

from manta.transports.blobs.digests import digest_of
from manta.transports.blobs.sources import FileSource
from manta.transports.errors import BlobCorrupt, BlobRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.transports.blobs.interface import Depot, Sink, Source
    from manta.transports.blobs.sealing import SealedContent
    from manta.transports.interface import Buffer

PIECE = 1 << 20  # bytes copied at once


class Publisher(Protocol):
    """The depot of a blob that is being written."""

    def publish(self, writer: BlobWriter) -> None:
        """Take over the writer's descriptor. Raises BlobRefused, and then has not."""

    def discard(self, writer: BlobWriter) -> None:
        """Release what the writer occupied."""

    def refusal(self, digest: str, size: int, error: OSError) -> BlobRefused: ...


class BlobWriter:
    """A Sink over a descriptor, which its depot publishes or discards at the end."""

    def __init__(
        self,
        depot: Publisher,
        fd: int,
        digest: str,
        size: int,
        content: SealedContent | None = None,
    ) -> None:
        """`content`: how it is written where it is encrypted."""
        self._depot = depot
        self.fd = fd
        self.digest = digest
        self.size = size
        self.content = content
        self.path = ""  # of a file that is not published yet
        self.check_room: Callable[[], object] = lambda: None
        """Called before more is written. Raises BlobRefused."""
        self._written = 0
        self._hasher = blake3()

    def write(self, data: Buffer) -> None:
        """Raises BlobRefused when there is no room, BlobCorrupt when the blob is too long."""
        view = memoryview(data)
        if self._written + len(view) > self.size:
            raise BlobCorrupt(f"the blob {self.digest[:12]} has more than its {self.size} bytes")
        self.check_room()
        self._hasher.update(view)
        self._written += len(view)
        try:
            if self.content is not None:
                self.content.write(view)
            else:
                while view:
                    view = view[os.write(self.fd, view) :]
        except OSError as error:
            raise self._depot.refusal(self.digest, self.size, error) from error

    @property
    def written(self) -> int:
        return self._written

    @property
    def readable(self) -> int:
        """Bytes from the front that a source of it can read by now."""
        return self._written if self.content is None else self.content.stored

    def source(self) -> Source:
        """What has been written and will be, as far as it is readable."""
        if self.content is not None:
            return self.content.source()
        return FileSource(os.dup(self.fd), self.size)

    @property
    def hashed(self) -> str:
        """The digest of what has been written so far."""
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
        """Publish the blob, whose digest is known to be right."""
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


def copy(source: Source, sink: Sink) -> None:
    """Reads all of a blob into a sink, and commits it. Raises BlobCorrupt, BlobRefused, OSError."""
    try:
        for offset in range(0, source.size, PIECE):
            sink.write(source.read(offset, PIECE))
    except BaseException:
        sink.abort()
        raise
    sink.commit()


def put(depot: Depot, parts: tuple[Buffer, ...]) -> str:
    """Keeps the concatenated buffers as a blob; returns its digest. Raises BlobRefused."""
    digest = digest_of(*parts)
    sink = depot.sink(digest, sum(memoryview(part).nbytes for part in parts))
    if sink is None:
        return digest
    try:
        for part in parts:
            view = memoryview(part).cast("B")
            for start in range(0, len(view), PIECE):
                sink.write(view[start : start + PIECE])
    except BaseException:
        sink.abort()
        raise
    sink.commit()
    return digest
