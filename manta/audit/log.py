"""Writes an audit log, on a thread of its own: whoever records something does not wait.

What has gathered meanwhile becomes one block and is synced together. Several processes may write
one log in turns: each looks first where it ends. While the disk takes nothing, records wait in
memory, as many as may; of more it is recorded, once that is possible, how many were lost.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from manta.audit import folder as files
from manta.audit.keys import SealKey, is_sealed
from manta.audit.records import Head, Record, Unreadable, blocks, decode, digest_of, encode_record
from manta.transports.errors import remedied

log = logging.getLogger("manta.audit")

SEGMENT, KEPT = 8 * 1024 * 1024, 32
"""Bytes after which a segment is closed, and how many are kept."""
PAUSE = 0.05
"""Seconds between two blocks, unless somebody waits: so that they cost little."""
RETRY = 1.0
"""Seconds after which a disk that took nothing is tried again."""
MOST_WAITING = 32 * 1024 * 1024
"""Bytes of records that wait for the disk."""
MOST_AT_ONCE = 1_000
"""Records that are written together."""

Then = Callable[[bool], object]
"""Told, on the writer's thread, whether the record is on the disk."""


class AuditLog:
    """May be used from any thread. Nothing is read or written before the first record."""

    def __init__(
        self,
        folder: Path,
        key: SealKey,
        *,
        wall: Callable[[], float] = time.time,
        segment: int = SEGMENT,
        kept: int = KEPT,
    ) -> None:
        self.folder = folder
        self.key = key
        self.head = Head()
        """Where it ended when this object wrote last; number 0 before."""
        self._wall = wall
        self._segment = segment
        self._kept = kept
        self._changed = threading.Condition()
        self._waiting: deque[tuple[bytes, Then | None]] = deque()
        self._size = 0
        """Bytes that wait."""
        self._lost = 0
        self._urgent = False
        self._closing = False
        self._thread: threading.Thread | None = None
        self._trouble = ""
        self._known: tuple[Path, int, int, int] | None = None
        """Path, device, inode and size of the last segment, as this object left it."""

    def record(self, record: Record, then: Then | None = None) -> None:
        """`then` makes it urgent, and is called once it is on the disk, or is not taken now: it is
        written as soon as there is room. After `close`, nothing is recorded any more."""
        text = encode_record(record)
        with self._changed:
            taken = not self._closing and self._size + len(text) <= MOST_WAITING
            waits = taken and then is not None and not self._trouble
            if taken:
                self._waiting.append((text, then if waits else None))
                self._size += len(text)
                self._urgent |= waits
                self._start()
                self._changed.notify()
            else:
                self._lost += 1
        if then is not None and not waits:
            then(False)

    def close(self) -> None:
        """Writes what waits, as far as the disk takes it."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="audit-log", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if not self._waiting:
                    return
            took = self._write_waiting()
            with self._changed:
                if self._closing and not took:
                    if self._waiting:
                        log.error("%s lacks the last %d records", self.folder, len(self._waiting))
                    return
                if took:
                    self._changed.wait_for(lambda: self._closing or self._urgent, PAUSE)
                else:
                    self._changed.wait_for(lambda: self._closing, RETRY)

    def _write_waiting(self) -> bool:
        """Whether the disk took it."""
        with self._changed:
            batch = [self._waiting.popleft() for _ in range(min(MOST_AT_ONCE, len(self._waiting)))]
            lost, self._lost = self._lost, 0
            self._urgent = any(then is not None for _, then in self._waiting)
        records = [record for record, _ in batch]
        if lost:
            records.insert(0, self._note("records-lost", records=lost))
        trouble = ""
        try:
            self._write(records)
        except OSError as error:
            trouble = remedied(error)
            self._known = None
        self._tell(trouble)
        with self._changed:
            self._trouble = trouble
            if trouble:
                self._waiting.extendleft(
                    (record, None) for record in reversed(records[bool(lost) :])
                )
                self._lost += lost
            else:
                self._size -= sum(len(record) for record, _ in batch)
        for _, then in batch:
            if then is not None:
                then(not trouble)
        return not trouble

    def _tell(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            log.error(
                "the audit log %s cannot be written: %s. What is done meanwhile is recorded once "
                "it can be, as far as %d MiB go",
                *(self.folder, trouble, MOST_WAITING >> 20),
            )
        elif self._trouble and not trouble:
            log.info("the audit log %s is written again", self.folder)

    # --- the disk -------------------------------------------------------------------------

    def _write(self, records: list[bytes]) -> None:
        """Raises OSError; then nothing is written of them."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with files.locked(self.folder):
            path, size, found = self._end()
            if size >= self._segment:
                path, size = files.segment_path(self.folder, self.head.number + 1), 0
            spent = self._spent() if not size else []
            if spent:
                found.append(self._cut(spent))
            lines = list(blocks(self.head, [*found, *records], self.key))
            data = b"".join(line + b"\n" for line, _ in lines)
            self._append(path, size, data)
            self.head = lines[-1][1]
            files.write_head(self.folder, self.head, self.key)
            for one in spent:
                one.unlink(missing_ok=True)

    def _append(self, path: Path, size: int, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(path, flags, 0o600)
        try:
            os.ftruncate(fd, size)  # what a crash left of a line
            try:
                if os.write(fd, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(fd)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, size)
                raise
            status = os.fstat(fd)
        finally:
            os.close(fd)
        if not size:
            _sync(self.folder)
        self._known = path, status.st_dev, status.st_ino, status.st_size

    def _end(self) -> tuple[Path, int, list[bytes]]:
        """Returns the segment that is written, how much of it stands, and what is to be recorded
        of how it was found; sets the head. Raises OSError."""
        if self._known is not None:
            path, *known = self._known
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if [status.st_dev, status.st_ino, status.st_size] == known:
                    return path, status.st_size, []
        paths = files.segments(self.folder)
        own = {self.key.id: self.key.public}
        noted = files.read_head(self.folder, own)
        if not paths and noted is None and not (self.folder / files.HEAD).exists():
            self.head = Head()
            first = self._note("log-begun", log=os.urandom(8).hex(), key=self.key.public)
            return files.segment_path(self.folder, 1), 0, [first]
        path = paths[-1] if paths else files.segment_path(self.folder, (noted or Head()).number + 1)
        tail = _Tail(paths[-1:])
        if not tail.size:  # the first line of a new one was torn
            tail = _Tail(paths[-2:])
        found = []
        if noted is None:
            former, self.head = tail.key, tail.head
            if former and former != self.key.id:
                found.append(self._note("key-changed", former=former, key=self.key.public))
            else:
                found.append(self._note("head-lost", found=self.head.number))
        elif tail.head.number >= noted.number and tail.is_sealed(self.key.public):
            self.head = tail.head
        else:
            self.head = noted  # so that the gap stays to be seen
            damaged = {"noted": noted.number, "found": tail.head.number}
            found.append(self._note("log-damaged", **damaged))
        if tail.torn:
            found.append(self._note("line-torn", bytes=tail.torn))
        size = tail.size if tail.path == path else 0
        return path, size, found

    def _note(self, act: str, **about: Any) -> bytes:
        return encode_record(Record(self._wall(), act, about=about))

    def _spent(self) -> list[Path]:
        """The segments that make room for the one that is begun."""
        paths = files.segments(self.folder)
        return paths[: max(0, len(paths) - self._kept + 1)]

    def _cut(self, spent: list[Path]) -> bytes:
        after = files.segments(self.folder)[len(spent) :]
        try:
            block, _, _ = decode(next(files.lines(after[0])).rstrip(b"\n"))
            upto, digest = block.first - 1, block.previous
        except (IndexError, StopIteration, Unreadable):
            upto, digest = 0, ""
        if not after:
            upto, digest = self.head.number, self.head.digest
        return self._note("records-removed", upto=upto, digest=digest)


class _Tail:
    """The end of the last segments: the last whole line, and what is there beyond it."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.head = Head()
        self.key = ""
        self.path: Path | None = None
        """The segment with the last whole line."""
        self.size = 0
        """Bytes of its whole lines."""
        self.torn = 0
        """Bytes beyond."""
        last = b""
        for path in paths:
            whole = torn = 0
            for line in files.lines(path):
                torn += len(line)
                if line.endswith(b"\n"):
                    whole, torn, last = whole + torn, 0, line[:-1]
            self.torn = torn
            if whole:
                self.path, self.size = path, whole
        with contextlib.suppress(Unreadable):
            block, self._seal, self._content = decode(last)
            self.head, self.key = Head(block.last, digest_of(last)), block.key

    def is_sealed(self, public: str) -> bool:
        return bool(self.key) and is_sealed(public, self._content, self._seal)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
