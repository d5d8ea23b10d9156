"""A daemon's log: to the console, or to a file that is rotated by size."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

KEPT = 3
FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


class RotatingFile(logging.Handler):
    """Appends lines to `path`; at `limit` bytes it becomes `path.1`, and that one `path.2`.

    The standard library's handler takes 10 ms to import, for pickle and sockets.
    """

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__()
        self._path = path
        self._limit = limit
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = (self.format(record) + "\n").encode("utf-8", "replace")
            if self._size and self._size + len(data) > self._limit:
                self._rotate()
            self._size += os.write(self._fd, data)
        except OSError:
            self.handleError(record)

    def _rotate(self) -> None:
        for number in range(KEPT - 1, -1, -1):
            older = self._path.with_name(f"{self._path.name}.{number + 1}")
            newer = self._path.with_name(f"{self._path.name}.{number}") if number else self._path
            if newer.exists():
                os.replace(newer, older)
        os.close(self._fd)
        self._open()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()


def configure(level: str, *, file: Path | None, limit: int, console: bool) -> None:
    """Configure logging for the whole process."""
    handlers: list[logging.Handler] = []
    if file is not None:
        handlers.append(RotatingFile(file, limit))
    if console:
        handlers.append(logging.StreamHandler(sys.stderr))
    logging.basicConfig(level=level, format=FORMAT, handlers=handlers or [logging.NullHandler()])
