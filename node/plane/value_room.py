"""The room that large values take on a node: in memory, on disk, and among open descriptors. Pure.

What can be had again gives way to what is wanted: copies of other nodes' values that tasks were
given already, whose holders have them yet; then what collectives can do without; on disk, at last,
what was kept before this process began and nobody has asked for since. Nothing does where that
would not be enough.

Descriptors are divided, so that none of their uses takes the others': half are for values that
tasks here hand in, which are files where these are taken; a quarter for copies; a quarter for files
while they are read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from manta.node.plane.shares import MULTIPLE, SharedRoom

MIB = 1 << 20


class NoRoom(Exception):
    """The node keeps no more values; says how much it may and holds."""


class Spare(Protocol):
    """What can be let go of."""

    def drop_copy(self, in_memory: bool | None) -> bool:
        """Of those that can be had again, in memory, on disk, or wherever. False if none is."""

    def untaken(self) -> int:
        """Bytes on disk that nobody has asked for since this process began."""

    def drop_untaken(self) -> None:
        """The oldest of that."""


class ValueRoom:
    def __init__(self, memory: int, disk: int, most_open: int, spare: Spare, where: str) -> None:
        """Bytes, and how many values may be open at a time; `where`: on what disk."""
        self.memory = SharedRoom(memory)
        self.disk = SharedRoom(disk)
        self.own = SharedRoom(most_open // 2)
        self.copies = SharedRoom(most_open // 4)
        self.reading = SharedRoom(most_open // 4)
        self.reclaim: Callable[[Callable[[], bool]], None] | None = None
        """Has others that count here give back what they can do without, while more is wanted."""
        self._spare = spare
        self._where = where

    def fits_memory(self, swarm_id: str, size: int) -> bool:
        def is_short() -> bool:
            return not self.memory.fits(swarm_id, size)

        if not self.memory.could_fit(swarm_id, size):
            return False
        while is_short() and self._spare.drop_copy(in_memory=True):
            pass
        if self.reclaim is not None:
            self.reclaim(is_short)
        return not is_short()

    def take_memory(self, swarm_id: str, size: int) -> None:
        """Raises NoRoom."""
        if not self.fits_memory(swarm_id, size):
            raise NoRoom(
                f"This node keeps {_mib(self.memory.used)} MiB of values that tasks send to each "
                f"other in memory, of at most {_mib(self.memory.most)} MiB{_share(swarm_id)}, and "
                f"a value of {_mib(size)} MiB does not fit: receive more of them first, or give "
                "the node more (value_memory_mb)."
            )
        self.memory.take(swarm_id, size)

    def take_disk(self, swarm_id: str, size: int) -> None:
        """Raises NoRoom."""
        disk = self.disk
        if disk.could_fit(swarm_id, size):
            while not disk.fits(swarm_id, size) and self._spare.drop_copy(in_memory=False):
                pass
        if not disk.fits(swarm_id, size):
            if not disk.fits(swarm_id, size, spare=self._spare.untaken()):
                raise NoRoom(self._refusal(swarm_id, size))
            while not disk.fits(swarm_id, size):
                self._spare.drop_untaken()
        disk.take(swarm_id, size)

    def take_copy(self, swarm_id: str) -> None:
        """Raises NoRoom."""
        while not self.copies.fits(swarm_id, 1):
            if not self._spare.drop_copy(in_memory=None):
                raise NoRoom(_too_many(self.copies, "large values of other nodes", swarm_id))
        self.copies.take(swarm_id, 1)

    def take_reading(self, swarm_id: str) -> None:
        """Raises NoRoom."""
        if not self.reading.fits(swarm_id, 1):
            raise NoRoom(_too_many(self.reading, "files of large values", swarm_id))
        self.reading.take(swarm_id, 1)

    def _refusal(self, swarm_id: str, size: int) -> str:
        return (
            f"This node keeps {_mib(self.disk.used)} MiB of values that tasks send to each other, "
            f"of at most {_mib(self.disk.most)} MiB for which there is room on its disk, and "
            f"{_mib(self.memory.used)} of at most {_mib(self.memory.most)} MiB of them in memory"
            f"{_share(swarm_id)}, and a value of {_mib(size)} MiB does not fit: receive more of "
            f"them first, or give the node more (room on the disk of {self._where})."
        )


def _too_many(room: SharedRoom, what: str, swarm_id: str) -> str:
    return (
        f"This node has {room.used:,} {what} open that tasks send to each other, of at most "
        f"{room.most:,}{_share(swarm_id)}: receive fewer at a time, or let the node open more "
        "files (ulimit -n)."
    )


def _mib(size: int) -> str:
    return f"{size / MIB:,.1f}"


def _share(swarm_id: str) -> str:
    return f", of which one swarm may take {MULTIPLE} times what it leaves" if swarm_id else ""
