"""A log file that is rotated by size, for daemons: whatever is logged, it takes so much room."""

from __future__ import annotations

import logging
import os
from pathlib import Path

KEPT = 3
"""Files beside the one that is written."""
MOST_OF_AN_ENTRY = 64 * 1024
"""Bytes."""
STDERR = 2


class RotatingFile(logging.Handler):
    """Appends lines to `path`; at `limit` bytes it becomes `path.1`, and that one `path.2`.

    If stderr is the same file, it stays so: libraries write there as they end the process. The
    standard library's handler takes 10 ms to import, for pickle and sockets.
    """

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__()
        self._path = path
        self._limit = limit
        self._with_stderr = is_stderr(path)
        self._fd = _open(path)
        if self._with_stderr:
            os.dup2(self._fd, STDERR)
        self._size = os.fstat(self._fd).st_size

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = (self.format(record) + "\n").encode("utf-8", "replace")
            if len(data) > MOST_OF_AN_ENTRY:
                cut = f" ... ({len(data)} bytes, cut)\n".encode()
                data = data[: MOST_OF_AN_ENTRY - len(cut)] + cut
            if self._with_stderr:
                self._size = os.fstat(self._fd).st_size
            if self._size and self._size + len(data) > self._limit:
                self._rotate()
            self._size += os.write(self._fd, data)
        except OSError:
            self.handleError(record)

    def _rotate(self) -> None:
        """Goes on in a new file; if there can be none, all is as before.

        The descriptor's number is never free: another thread would open its own file there.
        """
        new = self._path.with_name(f"{self._path.name}.new")
        fd = _open(new)
        try:
            if self._path.exists():  # else a rotation failed when that had been put aside
                self._put_aside()
            os.replace(new, self._path)
            os.dup2(fd, self._fd, inheritable=False)
            if self._with_stderr:
                os.dup2(fd, STDERR)
            self._size = 0
        finally:
            os.close(fd)

    def _put_aside(self) -> None:
        for number in range(KEPT - 1, -1, -1):
            older = self._path.with_name(f"{self._path.name}.{number + 1}")
            newer = self._path.with_name(f"{self._path.name}.{number}") if number else self._path
            if newer.exists():
                os.replace(newer, older)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()


def is_stderr(path: Path) -> bool:
    """Is this process's stderr that file?"""
    try:
        return os.path.samestat(os.fstat(STDERR), os.stat(path))
    except OSError:  # it is closed, or there is no such file
        return False


def follow(path: Path) -> None:
    """Make the file that has this name now stderr: another process may have rotated it.

    Raises OSError.
    """
    fd = _open(path)
    os.dup2(fd, STDERR)
    os.close(fd)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
