"""An append-only file of records."""

from __future__ import annotations

import errno
import logging
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from manta.transports.codec.stored import Damaged, Thing
from manta.transports.errors import BlobCorrupt, remedied

if TYPE_CHECKING:
    from manta.node.journal.sealed_records import SealedRecords
    from manta.transports.blobs.sealing import Sealer

REMEDY = "nothing is to be done, but check this disk if it happens again"
FIRST, LONGEST = 1.0, 60.0
"""Seconds of the first pause before a compaction is tried again, and of the longest."""
SPARE = 1 << 20
"""Bytes of the disk that a compaction leaves to what others write meanwhile."""

log = logging.getLogger(__name__)

T = TypeVar("T")

sync = getattr(os, "fdatasync", os.fsync)


class Compaction:
    """Of a file that goes on as it is while the disk has no room for another one beside it. It is
    tried again after pauses, each twice as long, and told once."""

    def __init__(self, path: Path) -> None:
        self.at = -math.inf
        """When it may be tried."""
        self._path = path
        self._pause = 0.0

    def attempt(self, replace: Callable[[], object], now: float) -> bool:
        """Whether it is done; `replace` raises OSError."""
        if now < self.at:
            return False
        try:
            replace()
        except OSError as error:
            if not self._pause:
                log.warning(
                    "%s holds what nobody needs any more, until there is room on the disk to write "
                    "the rest anew: %s",
                    *(self._path, error.strerror),
                )
            self._pause = min(LONGEST, 2 * self._pause or FIRST)
            self.at = now + self._pause
            return False
        if self._pause:
            log.info("%s holds only what is needed again.", self._path)
        self._pause, self.at = 0.0, -math.inf
        return True


class RecordFile(Generic[T]):
    """`decode` returns the records before the first torn or damaged one, their size in bytes, and
    what is wrong with that one, "" if there is none."""

    def __init__(
        self,
        path: Path,
        decode: Callable[[bytes], tuple[list[T], int, str]],
        sealer: Sealer | None = None,
    ) -> None:
        """With a `sealer` the file is encrypted; one that is there, and is not, is written anew."""
        self.path = path
        self._sealer = sealer
        self._sealed: SealedRecords | None = None
        """What encrypts the file that is there."""
        self._draft = path.with_name(f"{path.name}.new")
        self._decode = decode
        self.size = 0
        self.dirty = False
        self.stale = True
        """Records are missing in the file: rewrite it before adding more."""
        self.compaction = Compaction(path)
        self._fd = -1

    def read(self, lost: str) -> list[T]:
        """Returns the intact records, and cuts off from the first that is torn or damaged on, which
        is told with what is `lost`. Raises OSError."""
        data = self.path.read_bytes()
        records, length, flaw = self._decoded(data)
        if flaw:
            why = f"{flaw}, at byte {length} of {len(data)}"
            log.error("%s", Damaged(Thing(f"{self.path}", lost, REMEDY), why))
            os.truncate(self.path, length)
        self._open()
        self.size = length
        self.stale = False
        if self._sealer is not None and self._sealed is None:
            self._seal(data[:length])
        return records

    def _decoded(self, data: bytes) -> tuple[list[T], int, str]:
        """As `decode`, of what is in the file."""
        if self._sealer is None:
            return self._decode(data)
        from manta.node.journal.sealed_records import SealedRecords, is_sealed

        if not is_sealed(data):
            return self._decode(data)
        plain, ends, torn = bytearray(), [(0, 0)], ""
        try:
            self._sealed = SealedRecords.of(self._sealer, self.path.name, data)
            ends = [(0, len(self._sealed.head))]
            for records, end in self._sealed.frames(data):
                plain += records
                ends.append((len(plain), end))
        except BlobCorrupt as error:
            torn = str(error)
        found, length, flaw = self._decode(bytes(plain))
        return found, max(end for upto, end in ends if upto <= length), torn or flaw

    def _seal(self, plain: bytes) -> None:
        try:
            self.rewrite([plain])
        except OSError as error:
            log.warning("%s is not encrypted yet: %s", self.path, remedied(error))
            self.stale = True

    def add(self, data: bytes) -> None:
        """Raises OSError; the file is then as it was before, or stale."""
        if self._fd < 0:
            self._open()
        if self._sealer is not None:
            data = self._framed(data)
        try:
            written = os.write(self._fd, data)
            if written < len(data):
                written += os.write(self._fd, data[written:])
            if written < len(data):
                raise OSError(28, "No space left on device")
        except OSError:
            self.stale = True
            os.ftruncate(self._fd, self.size)
            self.stale = False
            raise
        self.size += len(data)
        self.dirty = True

    def _framed(self, data: bytes) -> bytes:
        assert self._sealer is not None
        if self._sealed is not None and self.size:
            return self._sealed.frame(data, self.size)
        from manta.node.journal.sealed_records import SealedRecords

        self._sealed = SealedRecords.new(self._sealer, self.path.name)
        return b"".join(self._sealed.file([data]))

    def shrink(self, records: Sequence[bytes]) -> None:
        """As rewrite, if the disk then still takes what others write: else that would fail."""
        disk = os.statvfs(self.path.parent)
        if disk.f_bavail * disk.f_frsize < sum(map(len, records)) + SPARE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.rewrite(records)

    def rewrite(self, records: Iterable[bytes]) -> None:
        """Replace the whole file. Raises OSError; the old file then stays."""
        draft, sealed, former = self._draft, None, -1
        if self._sealer is not None:
            from manta.node.journal.sealed_records import SealedRecords

            sealed = SealedRecords.new(self._sealer, self.path.name)
            records = sealed.file(records)
        try:
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                size = sum(map(file.write, records))
                file.flush()
                sync(fd)
            if self._sealer is not None and self.path.exists():
                former = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            os.replace(draft, self.path)
        except OSError:
            draft.unlink(missing_ok=True)
            if former >= 0:
                os.close(former)
            raise
        if self._sealer is not None and former >= 0:
            self._sealer.erase(former, self.path)
        self._sealed = sealed
        self.close()
        self._open()
        self.size, self.stale = size, False
        self.dirty = True  # who syncs next learns up to where the file goes

    def descriptor(self) -> int:
        """Returns a descriptor that the caller syncs and closes, even if the file is rewritten."""
        self.dirty = False
        return os.dup(self._fd)

    def delete(self) -> None:
        self.close()
        if self._sealer is not None and self.path.exists():
            self._sealer.erase(os.open(self.path, os.O_WRONLY | os.O_CLOEXEC), self.path)
            self._sealed = None
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self.dirty = False  # what was not synced before stays with the system

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, 0o600)
