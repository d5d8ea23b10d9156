"""Memory that a collective uses, and who else does."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable

from manta.protocol.base import Instance


class Block:
    """Of whole pages."""

    def __init__(
        self,
        number: int,
        fd: int,
        size: int,
        swarm_id: str,
        room_of: Instance | None = None,
        *,
        is_file: bool = False,
        is_adopted: bool = False,
    ) -> None:
        self.number = number
        self.swarm_id = swarm_id
        self.fd = fd
        self.size = size
        self.room_of = room_of
        """The attempt that writes it, or was the last to, if it is a room."""
        self.is_left = False
        """Is the process of that attempt gone?"""
        self.is_file = is_file
        self.view = memoryview(
            mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
            if is_adopted
            else mmap.mmap(fd, size)
        )
        self.written = 0
        """Bytes from the start on that may be other than 0."""
        self.holds = 1
        """How many use it here."""
        self.lent: dict[Instance, int] = {}
        """How many mappings of it each attempt has."""
        self.is_fit = not is_adopted
        """May it be used again?"""
        self.idle_since = 0.0
        self.given_at = 0.0
        """When the attempt was given it, if it is a room."""

    @property
    def is_kept(self) -> bool:
        """Is it memory, and no room?"""
        return self.room_of is None and not self.is_file

    def empty(self) -> None:
        """Nobody reads it any more: its pages are the system's again, also where it is mapped."""
        memory = self.view.obj
        assert isinstance(memory, mmap.mmap)
        with contextlib.suppress(OSError):  # then they are when it is mapped nowhere
            memory.madvise(mmap.MADV_REMOVE)


Which = Callable[[Block], bool]


def is_memory(block: Block) -> bool:
    return not block.is_file


def is_file(block: Block) -> bool:
    return block.is_file


def is_any(_: Block) -> bool:
    return True
