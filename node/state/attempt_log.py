"""What ran on a node, and for whom: a log for the node's owner.

One JSON object a line: an attempt when it begins and again when it ends, and each start of the
daemon, which ended whatever had begun and not ended. At `limit` bytes the file becomes `.1`, and
that one `.2`, up to KEPT.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from manta.protocol.node import Assignment, Instance
from manta.protocol.states import AttemptState
from manta.transports.errors import remedied

log = logging.getLogger(__name__)

KEPT = 3
LONGEST = 1024 * 1024
"""Bytes of a line: an attempt with ten thousand datasets."""


class Ran(msgspec.Struct, frozen=True, tag="attempt", tag_field="kind"):
    """One attempt. Times are in seconds since the epoch."""

    user: str
    swarm_id: str
    swarm: str
    task: str
    """Alias and index."""
    iteration: int
    attempt: int
    datasets: tuple[str, ...]
    began: float
    ended: float | None = None
    status: str = AttemptState.RUNNING


class DaemonBegan(msgspec.Struct, frozen=True, tag="daemon", tag_field="kind"):
    at: float


_Line = Ran | DaemonBegan
_Attempts = dict[tuple[str, str, int, int, float], Ran]
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Line).decode


class AttemptLog:
    """May be used from any thread. What the disk does not take is told in the daemon's log."""

    def __init__(self, path: Path, limit: int, at: float) -> None:
        self._path = path
        self._limit = limit
        self._lock = threading.Lock()
        self._running: dict[Instance, Ran] = {}
        self._fd = -1
        self._known: tuple[int, int, int] | None = None
        """Device, inode and size of the open file, as it was left."""
        self._write(DaemonBegan(at))

    def close(self) -> None:
        """What comes later opens it again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close

    def began(self, assignment: Assignment, at: float) -> None:
        instance = assignment.instance
        datasets = dict.fromkeys((*assignment.module.datasets, *assignment.datasets))
        ran = Ran(
            assignment.user,
            instance.swarm_id,
            assignment.swarm_name,
            f"{instance.alias}.{instance.index}",
            instance.iteration,
            instance.attempt,
            tuple(datasets),
            at,
        )
        with self._lock:
            self._running[instance] = ran
            self._write(ran)

    def ended(self, instance: Instance, status: str, at: float) -> None:
        """Of one that never began, nothing is written."""
        with self._lock:
            ran = self._running.pop(instance, None)
            if ran is not None:
                self._write(msgspec.structs.replace(ran, ended=at, status=status))

    def _write(self, line: _Line) -> None:
        try:
            if self._fd < 0 or self._found() != self._known:
                data = self._open() + _encode(line) + b"\n"
            else:
                data = _encode(line) + b"\n"
            assert self._known is not None
            device, inode, size = self._known
            if os.write(self._fd, data) < len(data):
                os.ftruncate(self._fd, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._known = device, inode, size + len(data)
            if size + len(data) >= self._limit:
                self.close()
                self._rotate()
        except OSError as error:
            self.close()
            log.warning("%s lacks an attempt: %s", self._path, remedied(error))

    def _found(self) -> tuple[int, int, int] | None:
        """What lies at the path now: somebody may have moved, removed or damaged it."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino, found.st_size

    def _open(self) -> bytes:
        """Opens the file; returns what is to be written first: an end to a line that is torn."""
        self.close()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)
        found = os.fstat(self._fd)
        self._known = found.st_dev, found.st_ino, found.st_size
        torn = bool(found.st_size) and os.pread(self._fd, 1, found.st_size - 1) != b"\n"
        return b"\n" * torn

    def _rotate(self) -> None:
        for number in range(KEPT - 1, -1, -1):
            if (newer := _numbered(self._path, number)).exists():
                os.replace(newer, _numbered(self._path, number + 1))


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def read(path: Path, *, running: bool) -> tuple[list[Ran], int]:
    """Returns the attempts in the log and its older parts, in the order in which they began, and
    how many lines cannot be read.

    `running`: whether the daemon is; else what has not ended was interrupted, nobody knows when.
    """
    found: _Attempts = {}
    unfinished: _Attempts = {}
    damaged = 0
    for text in _lines(path):
        try:
            line = _decode(text)
        except Exception:  # msgspec's errors, text that is no UTF-8, deep nesting
            damaged += 1
            continue
        if isinstance(line, Ran):
            key = line.swarm_id, line.task, line.iteration, line.attempt, line.began
            found[key] = line
            if line.ended is None:
                unfinished[key] = line
            else:
                unfinished.pop(key, None)
        else:
            _interrupt(found, unfinished, line.at)
    if not running:
        _interrupt(found, unfinished, None)
    return sorted(found.values(), key=lambda ran: ran.began), damaged


def _interrupt(found: _Attempts, unfinished: _Attempts, at: float | None) -> None:
    for key, ran in unfinished.items():
        found[key] = msgspec.structs.replace(ran, ended=at, status=AttemptState.INTERRUPTED)
    unfinished.clear()


def _lines(path: Path) -> Iterator[bytes]:
    for number in range(KEPT, -1, -1):
        try:
            with _numbered(path, number).open("rb") as file:
                yield from iter(lambda: file.readline(LONGEST), b"")
        except FileNotFoundError:
            continue
