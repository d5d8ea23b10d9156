"""The room that what tasks exchange takes on a node: in memory, on disk, and among open
descriptors. Pure.

What can be had again gives way to what is wanted: copies of other nodes' values that tasks were
given already, whose holders have them yet; then what collectives can do without; on disk, at last,
what was kept before this process began and nobody has asked for since.

Descriptors are divided, so that none of their uses takes the others': half are for values that
tasks here hand in, which are files where these are taken; a quarter for copies; a quarter for files
while they are read.
"""

from __future__ import annotations

from manta.node.plane.shares import SharedRoom

MIB = 1 << 20
_REMEDY = (
    "receive more of them first, call fewer collectives in an iteration, or give the node more"
)


class NoRoom(Exception):
    """The node keeps no more values; says how much it may and holds."""


class KeptNoLonger(LookupError):
    """What others gave or sent was let go of. Tasks are told so as `PeerLost`."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(
            f"{what} is kept no longer on {where}, for want of room: go on from a checkpoint, or "
            "give the node more (value_memory_mb)."
        )


class ValueRoom:
    def __init__(self, memory: int, disk: int, most_open: int, where: str) -> None:
        """Bytes, and how many values may be open at a time; `where`: on what disk."""
        self.memory = SharedRoom(memory)
        self.disk = SharedRoom(disk)
        self.own = SharedRoom(most_open // 2)
        self.copies = SharedRoom(most_open // 4)
        self.reading = SharedRoom(most_open // 4)
        self._where = where

    def take_memory(self, swarm_id: str, size: int) -> None:
        """Raises NoRoom."""
        if not self.memory.make(swarm_id, size):
            raise NoRoom(
                f"This node keeps {_in_memory(self.memory, swarm_id)}. A value of {mib(size)} MiB "
                f"does not fit: {_REMEDY} (value_memory_mb)."
            )
        self.memory.take(swarm_id, size)

    def take_disk(self, swarm_id: str, size: int) -> None:
        """Raises NoRoom."""
        if not self.disk.make(swarm_id, size):
            raise NoRoom(
                f"This node keeps {mib(self.disk.used)} MiB of values that tasks send to each "
                f"other, of at most {mib(self.disk.most)} MiB for which there is room on its "
                f"disk{share(self.disk, swarm_id)}; and {_in_memory(self.memory, swarm_id)}. A "
                f"value of {mib(size)} MiB does not fit: {_REMEDY} (room on the disk of "
                f"{self._where})."
            )
        self.disk.take(swarm_id, size)

    def take_copy(self, swarm_id: str) -> None:
        """Raises NoRoom."""
        if not self.copies.make(swarm_id, 1):
            raise NoRoom(_too_many(self.copies, "large values of other nodes", swarm_id))
        self.copies.take(swarm_id, 1)

    def take_reading(self, swarm_id: str) -> None:
        """Raises NoRoom."""
        if not self.reading.fits(swarm_id, 1):
            raise NoRoom(_too_many(self.reading, "files of large values", swarm_id))
        self.reading.take(swarm_id, 1)


def share(room: SharedRoom, swarm_id: str) -> str:
    """Of a swarm, in bytes, as a part of a sentence."""
    own, allowed = mib(room.of(swarm_id)), mib(room.allows(swarm_id))
    return f", {own} MiB of them for this swarm, which may have {allowed} MiB beside the others"


def mib(size: int) -> str:
    return f"{size / MIB:,.1f}"


def _in_memory(room: SharedRoom, swarm_id: str) -> str:
    return (
        f"{mib(room.used)} MiB of values that tasks send to each other in memory, of at most "
        f"{mib(room.most)} MiB{share(room, swarm_id)}"
    )


def _too_many(room: SharedRoom, what: str, swarm_id: str) -> str:
    return (
        f"This node has {room.used:,} {what} open that tasks send to each other, of at most "
        f"{room.most:,}, {room.of(swarm_id):,} of them for this swarm, which may have "
        f"{room.allows(swarm_id):,} beside the others: receive fewer at a time, or let the node "
        "open more files (ulimit -n)."
    )
