"""Blobs that arrive from one source after another, and are served on as far as they have come."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from manta.transports.errors import BlobCorrupt, BlobMissing, BulkError

if TYPE_CHECKING:
    from manta.node.blobs.tiered_depot import TieredDepot
    from manta.transports.blobs.writer import BlobWriter
    from manta.transports.interface import Buffer


class ArrivesLater(BlobMissing):
    """The blob is not here yet."""


class Arriving:
    """A Sink that outlives the transfers into it: one goes on where the last one ended.

    Thread-safe. Raises BlobRefused when there is no room for it.
    """

    def __init__(
        self, values: TieredDepot, digest: str, size: int, grown: Callable[[str], object]
    ) -> None:
        """`grown(digest)` is called after more of it has come, on the thread that brought it."""
        self.digest = digest
        self.size = size
        self.trouble: BulkError | None = None
        """Why nothing can be kept any more: no other source helps."""
        self.whole = False
        self.ended = threading.Event()
        """It is whole, or does not come."""
        self.adopted = -1
        """A descriptor of the blob, if it came by other means than writing."""
        self._values = values
        self._grown = grown
        self._lock = threading.Lock()
        self._writer = values.draft(digest, size)

    @property
    def written(self) -> int:
        return self._writer.written

    def write(self, data: Buffer) -> None:
        with self._lock:
            try:
                self._writer.write(data)
            except BlobCorrupt:
                raise
            except BulkError as error:
                self.trouble = error
                raise
        self._grown(self.digest)

    def commit(self) -> None:
        with self._lock:
            try:
                self._writer.commit()
            except BlobCorrupt:
                raise
            except BulkError as error:
                self.trouble = error
                raise
            self.whole = True

    def abort(self) -> None:
        """A transfer has ended: what it brought stays for the next one."""

    def restart(self) -> None:
        """Forget all that came. Raises BlobRefused."""
        with self._lock:
            self._writer.abort()
            self._writer = self._values.draft(self.digest, self.size)

    def came(self) -> None:
        """The values have it by other means. Raises BlobMissing."""
        with self._lock:
            self.adopted = self._values.open(self.digest)
            self.whole = True
            self._writer.abort()
        self._grown(self.digest)

    def when_whole(self, patience: float) -> int:
        """A descriptor of the blob, once it has come; the caller closes it. Raises BlobMissing if
        it does not come, and ArrivesLater where it is not there within so many seconds."""
        if not self.ended.wait(patience):
            raise ArrivesLater(f"the blob {self.digest[:12]} is still on its way")
        if not self.whole:
            raise BlobMissing(f"the blob {self.digest[:12]} does not arrive any more")
        return self._values.open(self.digest)

    def discard(self) -> None:
        """Let it go, unless it is whole; the last call."""
        with self._lock:
            if not self.whole:
                self._writer.abort()
        self.ended.set()

    def source(self) -> ArrivingSource:
        """What has come and what comes. Raises BlobMissing once nothing comes any more."""
        with self._lock:
            if self._writer.fd < 0:
                raise BlobMissing(f"the blob {self.digest[:12]} does not arrive any more")
            return ArrivingSource(self, self._writer)

    def __del__(self) -> None:
        if getattr(self, "adopted", -1) >= 0:
            os.close(self.adopted)


class ArrivingSource:
    """A Source of what is being written."""

    def __init__(self, arriving: Arriving, writer: BlobWriter) -> None:
        self.size = writer.size
        self._arriving = arriving
        self._writer = writer
        self._source = writer.source()

    @property
    def ready(self) -> int:
        return self.size if self._arriving.adopted >= 0 else self._writer.readable

    def read(self, offset: int, length: int) -> Buffer:
        """Raises BlobCorrupt where a file was cut short."""
        adopted = self._arriving.adopted
        if adopted < 0:
            return self._source.read(offset, min(length, self.ready - offset))
        data = os.pread(adopted, min(length, self.ready - offset), offset)
        if len(data) < min(length, self.ready - offset):
            raise BlobCorrupt(f"a blob of {self.size} bytes was cut short")
        return data

    def close(self) -> None:
        self._source.close()
