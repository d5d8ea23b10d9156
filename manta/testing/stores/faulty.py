"""A store that fails when told to."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from manta.manager.errors import StorageUnavailable
from manta.manager.store.interface import Store, Write


class Crash(BaseException):
    """Stands for the death of the process at this point."""


@dataclass
class Faults:
    """May be shared by several stores and set at any time.

    full                  commits fail as on a full disk, until it is False again
    crash_before_commit   the next commit crashes, and nothing of it is there
    crash_after_commit    the next commit crashes, and all of it is there: only its answer is lost
    """

    full: bool = False
    crash_before_commit: bool = False
    crash_after_commit: bool = False


class FaultyStore:
    """Passes everything on to another store, and counts the commits."""

    def __init__(self, store: Store, faults: Faults | None = None) -> None:
        self.store = store
        self.faults = faults or Faults()
        self.commits = 0
        self._lock = threading.Lock()
        self.get, self.all, self.count = store.get, store.all, store.count
        self.snapshot, self.snapshot_size = store.snapshot, store.snapshot_size
        self.page = store.page
        self.events, self.logs, self.log_ends = store.events, store.logs, store.log_ends
        self.unreferenced, self.named = store.unreferenced, store.named
        self.references = store.references
        self.extent, self.extents = store.extent, store.extents
        self.purge, self.tidy, self.close = store.purge, store.tidy, store.close

    def probe(self) -> None:
        self._check_room()
        self.store.probe()

    def _check_room(self) -> None:
        if self.faults.full:
            raise StorageUnavailable(
                "The manager's disk is full: nothing was stored; free some space."
            )

    def commit(self, writes: Sequence[Write]) -> None:
        with self._lock:
            self._check_room()
            if self.faults.crash_before_commit:
                self.faults.crash_before_commit = False
                raise Crash("before the commit")
            self.store.commit(writes)
            self.commits += 1
            if self.faults.crash_after_commit:
                self.faults.crash_after_commit = False
                raise Crash("after the commit")
