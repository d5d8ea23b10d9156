"""When the things of a list changed last, so that who has read it is told what is new since."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from manta.manager.ids import new_id


class Revisions:
    """Of one list. A revision is text: whose count it is, and a number that grows with each
    change; to another process's count all is new. For any thread."""

    def __init__(self) -> None:
        self._epoch = new_id()
        self._lock = threading.Lock()
        self._number = 0
        self._changes: dict[str, int] = {}
        """By key, in the order of the numbers."""
        self._on_change: Callable[[], object] | None = None

    def changed(self, *keys: str) -> None:
        """Call it once whoever reads the list sees the change; without keys, to have all that
        waits look again."""
        with self._lock:
            for key in keys:
                self._number += 1
                self._changes.pop(key, None)
                self._changes[key] = self._number
            on_change, self._on_change = self._on_change, None
        if on_change is not None:
            on_change()

    def forget(self, *keys: str) -> None:
        """They are in the list no more."""
        with self._lock:
            for key in keys:
                self._changes.pop(key, None)
        self.changed()

    def since(self, revision: str) -> list[tuple[str, str]]:
        """Keys and the revisions at which they changed last, in that order."""
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
        """Call `on_change` at the next change, once, on whatever thread that is. One at a time."""
        with self._lock:
            self._on_change = on_change


@dataclass(frozen=True)
class AllRevisions:
    """Of the lists that users watch."""

    clusters: Revisions = field(default_factory=Revisions)
    nodes: Revisions = field(default_factory=Revisions)
    swarms: Revisions = field(default_factory=Revisions)
    modules: Revisions = field(default_factory=Revisions)
