"""A blob that is being fetched, and what became of its sources."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from manta.actors import Reply
from manta.node.blobs.arriving import Arriving
from manta.protocol.peers import Peer
from manta.protocol.spread import MOST_FAILED, SPREAD, WantBlob
from manta.protocol.values import BlobRef


class FetchKey(NamedTuple):
    """What is fetched once, however many ask for it."""

    digest: str
    word_of: str
    """The swarm, by id, of which a node says that it is; "" if the manager says so, of whichever
    swarm: nobody's bytes are given to another one on the word of a node."""


@dataclass(eq=False)
class Fetching:
    blob: BlobRef
    swarm_id: str
    """"" if only the manager is to be asked."""
    holder: str
    """The node, by id, on which it stays; "" if the manager has it."""
    arriving: Arriving
    replies: list[Reply]
    until: float
    """When it is given up, unless more of it comes."""
    swarms: dict[str, None] = field(default_factory=dict)
    """Those for which it is offered as it comes."""
    from_manager: bool = False
    asked: bool = False
    """The manager was, whom from."""
    gave: dict[str, None] = field(default_factory=dict)
    """Aliases of the nodes that gave a part of what has come."""
    _came: int = 0
    """The most that has come so far."""
    _failed: dict[str, None] = field(default_factory=dict)
    _was_wrong: bool = False

    def __str__(self) -> str:
        return f"the blob {self.blob.digest[:12]} of {self.blob.size} bytes"

    @property
    def key(self) -> FetchKey:
        return FetchKey(self.blob.digest, self.swarm_id if self.holder else "")

    @property
    def may_spread(self) -> bool:
        """Whether other nodes are asked; of those that did not give it there may be too many."""
        if self.holder:  # then the manager is asked to have it brought
            return not self.from_manager
        is_worth_it = bool(self.swarm_id) and self.blob.size >= SPREAD
        return is_worth_it and not self.from_manager and len(self._failed) < MOST_FAILED

    def question(self) -> WantBlob:
        """What the manager is asked."""
        self.asked = True
        blob, failed = self.blob, tuple(self._failed)[:MOST_FAILED]
        known = blob.digest, blob.size, failed, self._was_wrong
        recall = len(self._failed) >= MOST_FAILED
        return WantBlob(self.swarm_id, *known, self.holder, recall)

    def is_late(self, now: float, patience: float) -> bool:
        """Whether nothing more has come for so many seconds."""
        if self.arriving.written > self._came:
            self._came, self.until = self.arriving.written, now + patience
        return now >= self.until

    def failed_at(self, source: Peer) -> None:
        self._failed[source.node_id] = None

    def restart(self) -> None:
        """All that came was wrong. Raises BlobRefused."""
        self._was_wrong = True
        self.gave.clear()
        self.arriving.restart()
