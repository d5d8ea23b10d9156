"""When the manager is told where the node's audit log ends, and what it answers is kept. Pure."""

from __future__ import annotations

from manta.audit.records import Head
from manta.protocol.audit import TellLogHead

EVERY = 900.0
"""Seconds between two heads, at least: what was recorded since the last is kept by nobody else."""
SOON = 60.0
"""Seconds after which it is told again over a new link."""
OWN = 1
"""Records by which the log grows when the manager's head is kept in it."""


class LogHeads:
    def __init__(self, key: str) -> None:
        """`key` is the public key that seals the log."""
        self._key = key
        self._is_new = True
        """Whether nothing was told over this link: the manager may have lost what it was told."""
        self._told: tuple[float, int] | None = None
        """When it was told last, and which record was the last then."""

    def registered(self) -> None:
        """There is a new link."""
        self._is_new = True

    def due(self, head: Head, now: float) -> TellLogHead | None:
        """What to tell now: nothing of a log to which nothing was added but what that adds."""
        if head.number < 1:
            return None
        if self._told is not None:
            at, number = self._told
            if now < at + (SOON if self._is_new else EVERY):
                return None
            if not self._is_new and head.number <= number + OWN:
                return None
        self._told, self._is_new = (now, head.number), False
        return TellLogHead(head.number, head.digest, self._key)
