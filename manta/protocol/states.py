"""The states that users see."""

from __future__ import annotations

from enum import StrEnum


class SwarmState(StrEnum):
    """PENDING until it is started, then ACTIVE or PAUSED; the last three are final."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    STOPPED = "STOPPED"
    FAILED = "FAILED"

    @property
    def final(self) -> bool:
        return self in (SwarmState.COMPLETED, SwarmState.STOPPED, SwarmState.FAILED)


class NodeState(StrEnum):
    CONNECTED = "CONNECTED"
    DISCONNECTED = "DISCONNECTED"  # within the grace of its lease
    LOST = "LOST"
    DRAINING = "DRAINING"


class ClusterState(StrEnum):
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"


class AttemptState(StrEnum):
    """Of one attempt of one task instance. The first three are live, the others final."""

    PLACED = "PLACED"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"  # its code raised, exited or crashed, or could not be loaded
    TIMEOUT = "TIMEOUT"  # ran longer than its `timeout`
    REFUSED = "REFUSED"  # the node would not run it
    CANCELLED = "CANCELLED"  # the manager revoked it
    INTERRUPTED = "INTERRUPTED"  # the platform lost it: no fault of its code
    SUPERSEDED = "SUPERSEDED"  # answered after it was given up

    @property
    def final(self) -> bool:
        return self not in (AttemptState.PLACED, AttemptState.QUEUED, AttemptState.RUNNING)
