"""The rosters of swarms, as they were told last. Pure."""

from __future__ import annotations

from manta.node.peers.known import KnownPeers
from manta.node.peers.rosters import RosterChanged, RosterNews
from manta.protocol.roster import Roster
from manta.roster import differences


class ToldRosters:
    """One of another timeline of the swarm waits until this node has heard of that."""

    def __init__(self, known: KnownPeers) -> None:
        self._known = known
        self._told: dict[str, Roster] = {}
        self._waiting: set[str] = set()
        """Swarms of which nobody was given the last one."""

    def told(self, news: RosterNews) -> None:
        """What is different in one that was told before it was forgotten is no news."""
        swarm_id = news.swarm_id
        if isinstance(news, RosterChanged):
            self._told[swarm_id] = news.roster
        elif (before := self._told.get(swarm_id)) is not None:
            self._told[swarm_id] = differences.apply(news.parts, before)
        else:
            return
        self._waiting.add(swarm_id)

    def take(self) -> list[tuple[str, Roster]]:
        """Those of swarms on whose timeline this node is; each is given once."""
        found = [
            (swarm_id, self._told[swarm_id])
            for swarm_id in sorted(self._waiting)
            if self._told[swarm_id].epoch == self._known.epoch(swarm_id)
        ]
        self._waiting.difference_update(swarm_id for swarm_id, _ in found)
        return found

    def forget(self, swarm_id: str) -> None:
        self._told.pop(swarm_id, None)
        self._waiting.discard(swarm_id)
