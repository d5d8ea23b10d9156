"""Which of the values on a node the iterations of its swarms can still name.

A *global's* value is named until another takes its place; then iterations under way may still
hold it. What instances say to each other is named within its iteration, a *result* as long as
its swarm lives. What was named last before the latest iteration that this node has seen, or
by a swarm that has ended, is of no use here any more: the manager has what it still needs.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import msgspec

MOST = 4096
"""Values remembered. The depot lets go of the others when it needs their room."""


class _Name(msgspec.Struct):
    swarm_id: str
    until: int | None
    """The last iteration that can name it; None: as long as the swarm lives."""
    tag: str | None = None
    """The global that has this value."""


class NamedValues:
    """May be used from any thread."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._names: OrderedDict[str, _Name] = OrderedDict()
        self._globals: dict[tuple[str, str], str] = {}
        self._latest: dict[str, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._names)

    def of_global(self, digest: str, swarm_id: str, iteration: int, tag: str) -> None:
        """An attempt of that iteration read or wrote this value of the global."""
        with self._lock:
            before = self._globals.get((swarm_id, tag))
            if before is not None and before != digest and self._names[before].tag == tag:
                self._names[before] = _Name(swarm_id, iteration)
            self._name(digest, _Name(swarm_id, None, tag))
            self._globals[swarm_id, tag] = digest

    def of_iteration(self, digest: str, swarm_id: str, iteration: int) -> None:
        """One of its instances told it others."""
        with self._lock:
            if digest not in self._names:
                self._name(digest, _Name(swarm_id, iteration))

    def of_swarm(self, digest: str, swarm_id: str) -> None:
        """It is a result."""
        with self._lock:
            self._name(digest, _Name(swarm_id, None))

    def moved_on(self, swarm_id: str, iteration: int) -> list[str]:
        """An attempt of that iteration ran: returns what can no longer be named."""
        with self._lock:
            if iteration <= self._latest.get(swarm_id, -1):
                return []
            self._latest[swarm_id] = iteration
            return self._forget(
                lambda name: (
                    name.swarm_id == swarm_id and name.until is not None and name.until < iteration
                )
            )

    def over(self, swarm_id: str) -> list[str]:
        """The swarm has ended: returns what it named."""
        with self._lock:
            self._latest.pop(swarm_id, None)
            return self._forget(lambda name: name.swarm_id == swarm_id)

    def _name(self, digest: str, name: _Name) -> None:
        self._drop(digest)
        self._names[digest] = name
        if len(self._names) > self._most:
            self._drop(next(iter(self._names)))

    def _forget(self, over: Callable[[_Name], bool]) -> list[str]:
        digests = [digest for digest, name in self._names.items() if over(name)]
        for digest in digests:
            self._drop(digest)
        return digests

    def _drop(self, digest: str) -> None:
        name = self._names.pop(digest, None)
        if name is not None and name.tag is not None:
            key = name.swarm_id, name.tag
            if self._globals.get(key) == digest:
                del self._globals[key]
