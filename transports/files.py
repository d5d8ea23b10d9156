"""Reads a file whole, up to a bound that fits what may be in it, or its end."""

from __future__ import annotations

import errno
import os
import stat

SMALL = 64 * 1024
"""Bytes; for a key, a token, a few settings."""


class FileTooLarge(ValueError):
    """It cannot be what it is taken for; the text does not name the file."""


def read_bounded(path: str | os.PathLike[str], bound: int = SMALL) -> bytes:
    """The bytes of a file, at most `bound`. Raises OSError, FileTooLarge.

    What is no file, as a pipe or a folder, is an OSError and not a hang.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "It is not a file", os.fspath(path))
        return read_at_most(fd, bound)
    finally:
        os.close(fd)


def read_at_most(fd: int, bound: int) -> bytes:
    """The rest of an open file, at most `bound` bytes. Raises OSError, FileTooLarge."""
    found = bytearray()
    while piece := os.read(fd, min(1 << 20, bound + 1 - len(found))):
        found += piece
        if len(found) > bound:
            raise FileTooLarge(f"it has more than {_size(bound)}, the most that may be in it")
    return bytes(found)


def read_end(path: str | os.PathLike[str], after: int = 0, bound: int = SMALL) -> bytes:
    """The last bytes of a file, at most `bound`, and none of the first `after`, if it has as many.

    Raises OSError.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(size - bound, after if after <= size else 0))
        return file.read(bound)


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"
