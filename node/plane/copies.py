"""What came, or comes, of a value that another node holds: memory or a file of this node's."""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from manta.node.plane import value_files
from manta.transports.exchange.letters import Remote

FUTURE_WRITE = 0x10
"""F_SEAL_FUTURE_WRITE of Linux 5.1: the mapping that bulk wrote through may last a while."""
_WRITTEN = FUTURE_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW

log = logging.getLogger("manta.node.plane")


class ValueGone(Exception):
    """Its holder has it no more: a later one has taken its place, or will."""

    def __init__(self) -> None:
        super().__init__("its sender has it no more")


class ValueLost(Exception):
    """It does not come; says why."""


class Stalled(ValueLost):
    """Nothing of it came for long, and no task waited for it."""


class NoPlace(Exception):
    """It comes, and there is nowhere to put it; says why."""


Then = Callable[[int, "Exception | None"], None]
"""Takes a descriptor, which stays the store's own, or -1 and why there is none."""


@dataclass(eq=False)
class Copy:
    """Of one remote value."""

    swarm_id: str
    remote: Remote
    in_memory: bool
    """Where its room is."""
    folder: Path
    is_ahead: bool
    """No task has asked for it yet."""
    fd: int = -1
    """Once it begins to come."""
    is_file: bool = False
    is_adopted: bool = False
    """It is memory of the other node's task, on this machine; nobody can change it."""
    is_whole: bool = False
    is_wanted: bool = True
    is_dropped: bool = False
    waiting: list[Then] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.remote.parcel.size

    def place(self, memfd: int) -> memoryview | None:
        """Of Carrier.fetch; again if what began to come did not come whole. Raises NoPlace."""
        if not self.is_wanted:
            raise NoPlace("nobody asks for it any more")
        self.close()
        self.is_file = self.is_adopted = False
        try:
            if memfd >= 0 and os.fstat(memfd).st_size >= self.size:
                self.fd, self.is_adopted = os.dup(memfd), True
                return None
            self.fd = self._memory() if self.in_memory else self._file()
            return memoryview(mmap.mmap(self.fd, self.size))
        except (OSError, ValueError, OverflowError) as error:
            raise NoPlace(f"there is no room for a value of {self.size} bytes: {error}") from error

    def _memory(self) -> int:
        try:
            fd = os.memfd_create("manta-parcel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.ftruncate(fd, self.size)
            except OSError:
                os.close(fd)
                raise
        except OSError as error:
            log.info("There is no memory for a value of %d bytes: %s", self.size, error)
            return self._file()
        return fd

    def _file(self) -> int:
        self.is_file = True
        return value_files.nameless(self.folder, self.size)

    def seal(self) -> None:
        """It is whole: nobody changes it any more. Raises OSError."""
        if self.is_file:
            fd, self.fd = self.fd, -1
            self.fd = value_files.read_only(fd)
        elif not self.is_adopted:
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _WRITTEN)
        self.is_whole = True

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
