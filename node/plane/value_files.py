"""Values as files: what finds no room in memory, and what must outlive the process.

Tasks are handed descriptors that are open for reading, and map them as they map memory.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path


def copy(fd: int, size: int, path: str) -> None:
    """Writes what a descriptor holds into a file, on disk for good. Raises OSError; the file is
    then not there."""

    def fill(out: int) -> None:
        at = 0
        while at < size:
            sent = os.sendfile(out, fd, at, size - at)
            if not sent:
                raise OSError(5, "The value is shorter than it was")
            at += sent

    _make(path, fill)


def write(parts: Iterable[bytes | memoryview], path: str) -> None:
    """The same, with these bytes one after the other."""

    def fill(out: int) -> None:
        for part in parts:
            left = memoryview(part)
            while left:
                left = left[os.write(out, left) :]

    _make(path, fill)


def _make(path: str, fill: Callable[[int], None]) -> None:
    """Raises OSError."""
    draft = f"{path}.new"
    out = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o400)
    try:
        fill(out)
        os.fsync(out)
        os.rename(draft, path)
    except OSError:
        delete(draft)
        raise
    finally:
        os.close(out)


def open_whole(path: str, size: int) -> int:
    """A descriptor to read it. Raises OSError, also where the file has another size."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if os.fstat(fd).st_size != size:
        os.close(fd)
        raise OSError(5, "The file has another size than its value")
    return fd


def read(path: str, size: int, into: memoryview, at: int) -> None:
    """Bytes of a value of that size, from `at` on. Raises OSError."""
    fd = open_whole(path, size)
    try:
        while into:
            count = os.preadv(fd, [into], at)
            if not count:
                raise OSError(5, "The file is shorter than what is to lie in it")
            into, at = into[count:], at + count
    finally:
        os.close(fd)


def check(path: str, size: int) -> None:
    """Raises OSError where it is not there, or has another size."""
    if os.stat(path).st_size != size:
        raise OSError(5, "The file has another size than its value")


def delete(path: str) -> None:
    """Raises OSError, unless it is gone already."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def nameless(folder: Path, size: int) -> int:
    """A descriptor of a new file to write into, all of whose room is taken, and which goes with its
    last descriptor. Raises OSError."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, size)
        os.fchmod(file.fileno(), 0o400)
        return os.dup(file.fileno())


def read_only(fd: int) -> int:
    """Another descriptor of the same file, which cannot write. Closes the first."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)
