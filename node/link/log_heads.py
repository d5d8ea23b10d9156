"""When the manager is told where the node's audit log ends, and what it answers is kept. Pure."""

from __future__ import annotations

from manta.audit.records import Head
from manta.protocol.audit import TellLogHead

EVERY = 900.0
"""Seconds between two heads, at least: what was recorded since the last is kept by nobody else."""
OWN = 1
"""Records by which the log grows when the manager's head is kept in it."""


class LogHeads:
    def __init__(self, key: str) -> None:
        """`key` is the public key that seals the log."""
        self._key = key
        self._told: tuple[float, int] | None = None
        """When it was told last, and which record was the last then."""

    def registered(self) -> None:
        """Over a new link it is told at once: it may be another manager's past."""
        self._told = None

    def due(self, head: Head, now: float) -> TellLogHead | None:
        """What to tell now: nothing of a log to which nothing was added but what that adds."""
        if head.number < 1:
            return None
        if self._told is not None:
            at, number = self._told
            if now < at + EVERY or head.number <= number + OWN:
                return None
        self._told = now, head.number
        return TellLogHead(head.number, head.digest, self._key)
