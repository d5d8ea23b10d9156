"""A file, or a memfd, into which a transfer is written as its chunks come.

Not through a mapping: of memory that is fresh the system would clear each page that it then has
written anew, and stop the thread at each; that costs twice as much as to write.
"""

from __future__ import annotations

import os


class NotWritten(Exception):
    """The system does not take it; says why."""


class InFile:
    """`size` bytes from its start on. The file is open for as long as anything refers to this."""

    def __init__(self, fd: int, size: int) -> None:
        """The descriptor stays its owner's. Raises OSError."""
        self.size = size
        self._fd = os.dup(fd)

    def write(self, data: memoryview, at: int) -> None:
        """On any thread, and without Python's lock. Raises NotWritten."""
        try:
            while data:
                count = os.pwrite(self._fd, data, at)
                data, at = data[count:], at + count
        except OSError as error:
            raise NotWritten(f"it can't be written: {error.strerror}") from error

    def __del__(self) -> None:
        if (fd := getattr(self, "_fd", -1)) >= 0:
            os.close(fd)
