"""Stores a swarm's snapshots: when replaying what came since the last one would take long.

No write holds up others for long. Pages go first, a part at a time, each once the one before it is
stored. A state that is large without them is passed over until it is smaller, as that of an
iteration in which much is said: until then more is replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from manta.manager.errors import StoreError
from manta.manager.store.actor import Writer
from manta.manager.store.interface import PutPages, PutSnapshot
from manta.manager.swarm import snapshots, weight
from manta.manager.swarm.machine import SwarmMachine

DUE, FINAL_DUE = 5000, 200
"""Events after which one is stored: of a swarm that runs, and of one that is over."""
AGAIN = 1000
"""Events until it is tried again."""
PAGES = 8 << 20
"""Bytes of pages that are stored at once, and that are held in memory before they are stored."""
BODY, FINAL_BODY = 48 << 20, 96 << 20
"""Bytes of the rest that are stored, at most: the newest results alone may be 32 MiB."""
SMALL, OFTEN = 4 << 20, 4
"""Above so many bytes, the rest is stored once a quarter of it was said since the last time."""
HEAVY = 4
"""A state that weighs so many times as much is not even encoded."""


@dataclass
class SnapshotWriter:
    swarm_id: str
    machine: SwarmMachine
    writer: Writer
    number: int
    """The event as of which the last one is."""
    said: Callable[[], int]
    """The bytes of all events."""
    read: snapshots.Read
    """Reads a page that was stored."""
    _is_storing: bool = False
    _not_before: int = 0
    _said: int = field(init=False)
    """Bytes of all events as of the last one."""

    def __post_init__(self) -> None:
        self._said = self.said()

    def write_if_due(self) -> None:
        machine = self.machine
        if self._is_storing or machine.revision < self._not_before or not self._is_due:
            return
        machine.data.settle()
        body = self._body()
        if body is None:
            self._not_before = machine.revision + AGAIN
            return
        pages, more = snapshots.pages(machine.data, PAGES)
        if more:
            self._is_storing = True
            self._write(PutPages(self.swarm_id, pages), pages)
            return
        self.number, self._said = machine.revision, self.said()
        self._write(PutSnapshot(self.swarm_id, machine.revision, body, pages), pages)

    @property
    def _is_due(self) -> bool:
        since, final = self.machine.revision - self.number, self.machine.state.final
        if since >= (FINAL_DUE if final else DUE):
            return True
        return since >= FINAL_DUE and weight.packed(self.machine.data) >= PAGES

    def _body(self) -> bytes | None:
        """None if it is too large now."""
        most = FINAL_BODY
        if not self.machine.state.final:
            most = min(BODY, max(SMALL, OFTEN * (self.said() - self._said)))
        if weight.unpacked(self.machine.data) > HEAVY * most:
            return None
        body = snapshots.body(self.machine.data, self.machine.revision)
        return body if len(body) <= most else None

    def _write(self, write: PutPages | PutSnapshot, pages: dict[str, bytes]) -> None:
        def then(error: StoreError | None) -> None:
            was_storing, self._is_storing = self._is_storing, False
            if error is not None:  # nothing is lost: the next one is tried in its time
                snapshots.not_stored(self.machine.data, pages)
                self._not_before = self.machine.revision + AGAIN
                return
            snapshots.stored(self.machine.data, pages, self.read)
            if was_storing:
                self.write_if_due()

        self.writer.write(write, then=then)
