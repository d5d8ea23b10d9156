"""Memory that a collective uses, and who else does."""

from __future__ import annotations

import contextlib
import mmap
import os
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


def is_kept(block: Block) -> bool:
    return block.is_kept


def is_any(_: Block) -> bool:
    return True


def is_for(block: Block, at: Instance | None) -> bool:
    """May it be a room of this attempt; or without one, a block?"""
    before = block.room_of
    if before is None or at is None or not block.is_left:
        return before == at
    return (before.alias, before.index) == (at.alias, at.index)


def rounded_up(size: int) -> int:
    """Upwards, so that sizes that are nearly alike are alike: by an eighth at most."""
    step = max(mmap.PAGESIZE, 1 << max(0, (size - 1).bit_length() - 4))
    return max(step, -(-size // step) * step)


def is_of_size(fd: int, size: int) -> bool:
    """May memory be taken over for a value of so many bytes? What is much larger would stay as a
    whole for that. Raises OSError."""
    return size <= os.fstat(fd).st_size <= rounded_up(size)
