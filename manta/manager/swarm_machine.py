"""Decides everything in the life of one swarm. Signatures first; the body follows."""

from __future__ import annotations

from collections.abc import Iterable

from manta.manager.swarm_events import Action, AskPlacement, Record, SwarmEvent
from manta.protocol.node import Assignment
from manta.protocol.states import SwarmState
from manta.protocol.values import Payload


class SwarmMachine:
    def __init__(self, swarm_id: str, cluster_id: str) -> None:
        self.state: SwarmState = SwarmState.PENDING
        self.reason: str = ""
        self.revision: int = 0
        """Grows with each event that changed something: only those need be stored."""

    @classmethod
    def replay(cls, swarm_id: str, cluster_id: str, records: Iterable[Record]) -> SwarmMachine:
        """The machine as it was; feed it ManagerRestarted next, then perform `outstanding`."""
        raise NotImplementedError

    def handle(self, event: SwarmEvent, now: float) -> list[Action]:
        """`now`: seconds since the epoch that never run backwards (wall clock at the
        manager's start, or the last record's `at` if later, plus monotonic time since)."""
        raise NotImplementedError

    def next_deadline(self) -> float | None:
        """When to feed the next Ticked."""
        raise NotImplementedError

    def desired(self) -> dict[str, tuple[Assignment, ...]]:
        """What each node shall run now; empty once the swarm is in a final state."""
        raise NotImplementedError

    def outstanding(self) -> list[AskPlacement]:
        """Placements that were asked for and not answered."""
        raise NotImplementedError

    def applied(self, node_id: str) -> int:
        """Number of the last journal entry applied of that node (Registered.acknowledged)."""
        raise NotImplementedError

    def global_value(self, tag: str) -> tuple[Payload | None, int]:
        """Value and version; (None, 0) when nobody has set it."""
        raise NotImplementedError

    def global_tags(self) -> tuple[str, ...]:
        raise NotImplementedError
