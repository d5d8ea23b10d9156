"""One event on its way through the machine: what it changes, and the actions it leads to."""

from __future__ import annotations

from collections.abc import Sequence

from manta.manager.swarm.events import Action, Publish, Released
from manta.manager.swarm.graph import Graph
from manta.manager.swarm.runs import Attempt
from manta.manager.swarm.state import SwarmData
from manta.protocol.user import EventItem
from manta.protocol.values import BlobRef


class Step:
    """`now` is the time of the event, `actions` what it has led to so far, in order."""

    def __init__(self, data: SwarmData, now: float) -> None:
        self.data = data
        self.now = now
        self.actions: list[Action] = []
        self.act = self.actions.append

    @property
    def graph(self) -> Graph:
        return self.data.graph

    def tell(self, kind: str, sentence: str, alias: str = "") -> None:
        """Tells users something of the swarm or of one task."""
        self._publish(EventItem(self.now, kind, sentence, self.data.iteration, alias))

    def tell_of(
        self, attempt: Attempt, kind: str, sentence: str, fraction: float | None = None
    ) -> None:
        """Tells users something of one attempt."""
        at = attempt.instance
        self._publish(
            EventItem(
                self.now,
                kind,
                sentence,
                at.iteration,
                at.alias,
                at.index,
                attempt.node_alias,
                fraction,
            )
        )

    def _publish(self, item: EventItem) -> None:
        self.data.events.append(item)
        self.act(Publish("events", item))

    def release(self, blobs: Sequence[BlobRef], *, deleted: bool = False) -> None:
        """Releases those of the blobs that nothing names any more."""
        needed = self.data.needed(blobs)
        gone = dict.fromkeys(blob for blob in blobs if blob.digest not in needed)
        if gone:
            self.act(Released(tuple(gone), deleted))
