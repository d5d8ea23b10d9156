"""A store that fails when told to."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from manta.manager.errors import StorageUnavailable
from manta.manager.store.interface import R, Store, StoredEvent, StoredLine, Write


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

    def commit(self, writes: Sequence[Write]) -> None:
        with self._lock:
            if self.faults.full:
                raise StorageUnavailable(
                    "The manager's disk is full: nothing was stored; free some space."
                )
            if self.faults.crash_before_commit:
                self.faults.crash_before_commit = False
                raise Crash("before the commit")
            self.store.commit(writes)
            self.commits += 1
            if self.faults.crash_after_commit:
                self.faults.crash_after_commit = False
                raise Crash("after the commit")

    def purge(self, limit: int = 1000) -> bool:
        return self.store.purge(limit)

    def tidy(self) -> None:
        self.store.tidy()

    def get(self, kind: type[R], key: str) -> R | None:
        return self.store.get(kind, key)

    def all(self, kind: type[R]) -> list[R]:
        return self.store.all(kind)

    def events(self, swarm_id: str, after: int = 0) -> Iterator[StoredEvent]:
        return self.store.events(swarm_id, after)

    def logs(self, swarm_id: str, after: int = 0, limit: int = 1000) -> list[StoredLine]:
        return self.store.logs(swarm_id, after, limit)

    def log_ends(self, swarm_id: str) -> dict[str, int]:
        return self.store.log_ends(swarm_id)

    def unreferenced(self, digests: Iterable[str]) -> set[str]:
        return self.store.unreferenced(digests)

    def close(self) -> None:
        self.store.close()
