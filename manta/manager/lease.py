"""Which nodes of a cluster are there. Signatures first; the bodies follow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from manta.protocol.states import NodeState


@dataclass(frozen=True)
class NodeStateChanged:
    node_id: str
    state: NodeState


@dataclass(frozen=True)
class Lost:
    """Tell the swarms (NodeLost): what the node ran is to be placed again."""

    node_id: str
    reason: str


@dataclass(frozen=True)
class Isolated:
    """Most nodes went at once: nothing is replaced; tell the operator."""

    node_ids: tuple[str, ...]
    sentence: str


@dataclass(frozen=True)
class Reunited:
    """Enough nodes are back; those still away get their grace anew."""

    sentence: str


LeaseAction = NodeStateChanged | Lost | Isolated | Reunited


class Leases:
    """`now` is monotonic."""

    def __init__(
        self,
        *,
        ttl: float = 10.0,
        grace: float = 10.0,
        mercy: float = 60.0,
        isolation: float = 0.55,
    ) -> None:
        raise NotImplementedError

    def restarted(self, node_ids: Iterable[str], now: float) -> list[LeaseAction]:
        """The manager has started and remembers these nodes."""
        raise NotImplementedError

    def connected(self, node_id: str, now: float) -> list[LeaseAction]:
        """It registered."""
        raise NotImplementedError

    def heard(self, node_id: str, now: float) -> list[LeaseAction]:
        """It sent a heartbeat, or anything else."""
        raise NotImplementedError

    def disconnected(self, node_id: str, now: float) -> list[LeaseAction]:
        """Its link went down."""
        raise NotImplementedError

    def said_goodbye(self, node_id: str, now: float) -> list[LeaseAction]:
        """It stops in good order."""
        raise NotImplementedError

    def draining(self, node_id: str, now: float) -> list[LeaseAction]:
        raise NotImplementedError

    def removed(self, node_id: str, now: float) -> list[LeaseAction]:
        raise NotImplementedError

    def tick(self, now: float) -> list[LeaseAction]:
        raise NotImplementedError

    def next_deadline(self) -> float | None:
        raise NotImplementedError

    def state(self, node_id: str) -> NodeState:
        """Raises KeyError for a node that was never connected or is removed."""
        raise NotImplementedError
