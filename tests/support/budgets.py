"""What memory of collectives is counted against."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from manta.node.plane import value_files
from manta.node.plane.shares import MULTIPLE
from manta.node.plane.value_room import ValueRoom


class Budget(ValueRoom):
    """Stands for `parcels.Parcels`, of which it has the rooms."""

    def __init__(self, memory: int, disk: int, folder: Path) -> None:
        super().__init__(memory, disk, 1000, str(folder))
        self.folder = folder
        self.now = 0.0

    @property
    def sizes(self) -> tuple[int, int]:
        """In memory and on disk."""
        return self.memory.used, self.disk.used

    def take_room(self, size: int, swarm_id: str) -> None:
        self.take_memory(swarm_id, size)

    def take_file(self, size: int, swarm_id: str) -> int:
        self.take_disk(swarm_id, size)
        return value_files.nameless(self.folder, size)

    def takes(self, parcel: bytes) -> tuple[int, int]:
        return 0, 0


def shared(size: int) -> int:
    """A room of which a swarm that is alone may take so much."""
    return -(-size * (MULTIPLE + 1) // MULTIPLE)


def on_disk(job: Callable[[], None], then: Callable[[Exception | None], None]) -> None:
    """The thread that waits for the disk, of which the disk is never waited for."""
    try:
        job()
    except OSError as error:
        then(error)
    else:
        then(None)
