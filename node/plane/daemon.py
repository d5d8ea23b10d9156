"""The node's daemon, as its plane speaks to it."""

from __future__ import annotations

from typing import Protocol

from manta.protocol.base import Instance
from manta.protocol.peers import LinksTold


class Daemon(Protocol):
    def want_roster(self, swarm_id: str, wanted: bool) -> None: ...

    def settle(self, at: Instance) -> None:
        """`Plane.settled` is to follow, once the manager has applied what the attempt has written
        by now."""

    def broke(self, at: Instance, why: str) -> None:
        """The attempt has sent what the protocol forbids."""

    def stopped(self, at: Instance, size: int, why: str) -> None:
        """What the attempt was to tell others has not left."""

    def summed(self, at: Instance, size: int) -> None:
        """The attempt, of which values leave in sums alone, gives one to a sum."""

    def lost(self, at: Instance, how: str) -> None:
        """What the attempt told others is forgotten; `how` says why."""

    def links_changed(self, links: LinksTold) -> None:
        """All links with other nodes."""
