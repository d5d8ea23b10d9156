"""Remembers when each item of a list last changed, so that a reader is told only what is new."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from manta.manager.ids import new_id


class Revisions:
    """The changes of one list. May be used from any thread.

    A revision is text: the id of this count, and a number that grows with each change. After a
    restart the count has another id, and everything is new.
    """

    def __init__(self) -> None:
        self._epoch = new_id()
        self._lock = threading.Lock()
        self._number = 0
        self._changes: dict[str, int] = {}
        """The last change of each key, oldest first."""
        self._on_change: Callable[[], object] | None = None

    def changed(self, *keys: str) -> None:
        """Call it once readers of the list see the change; without keys, it only makes those
        who wait look again."""
        with self._lock:
            for key in keys:
                self._number += 1
                self._changes.pop(key, None)
                self._changes[key] = self._number
            on_change, self._on_change = self._on_change, None
        if on_change is not None:
            on_change()

    def forget(self, *keys: str) -> None:
        """These are no longer in the list."""
        with self._lock:
            for key in keys:
                self._changes.pop(key, None)
        self.changed()

    def since(self, revision: str) -> list[tuple[str, str]]:
        """The keys that changed since, each with the revision of its last change, oldest first."""
        epoch, _, number = revision.partition(".")
        seen = int(number) if epoch == self._epoch and number.isdecimal() else 0
        found = []
        with self._lock:
            for key, at in reversed(self._changes.items()):
                if at <= seen:
                    break
                found.append((key, f"{self._epoch}.{at}"))
        return found[::-1]

    def tell_next(self, on_change: Callable[[], object]) -> None:
        """Calls `on_change` once, at the next change, on the thread that makes it. Replaces the
        one before."""
        with self._lock:
            self._on_change = on_change


@dataclass(frozen=True)
class AllRevisions:
    """The lists that users watch."""

    clusters: Revisions = field(default_factory=Revisions)
    nodes: Revisions = field(default_factory=Revisions)
    swarms: Revisions = field(default_factory=Revisions)
    modules: Revisions = field(default_factory=Revisions)
