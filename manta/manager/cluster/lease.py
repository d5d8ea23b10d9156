"""Decides which nodes of a cluster are connected, and when one is lost.

Theory of operation. A node holds a lease of `ttl` seconds, renewed by everything it sends.

    CONNECTED, DRAINING  --lease expires, link down, or goodbye-->          DISCONNECTED
    DISCONNECTED         --`grace` over, and most nodes are connected-->    LOST
    DISCONNECTED, LOST   --registers, or is heard over a link that held-->  CONNECTED, DRAINING
    CONNECTED            --drained-->                                       DRAINING
    DRAINING             --undrained-->                                     CONNECTED
    any                  --removed-->                                       forgotten

A node that fell silent or whose link dropped is *returning* for `hold` seconds: it is
expected back at once, and placement waits for it that long. The rest of its lease still
counts: it is LOST `ttl + grace` after it was last heard, or `grace` after a goodbye. After a
restart of the manager, every node that it remembers has `restart_grace` seconds to come back.

When two or more nodes are silent, and they are a fraction of `isolation` or more of the nodes
that were connected, the fault is more likely in the manager's own network: no node is lost
until enough of them are back. Nodes that said goodbye prove nothing either way.

Time without calls is the manager's own fault: when a call comes long after the deadline that
it should have come for, all deadlines move by the time since the last call.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from manta.protocol.states import NodeState

OVERSLEPT = 1.0
"""Seconds after a deadline beyond which the manager is taken to have been suspended."""


@dataclass(frozen=True)
class NodeStateChanged:
    node_id: str
    state: NodeState


@dataclass(frozen=True)
class Lost:
    """Tell the swarms (NodeLost): what the node ran has to be placed again."""

    node_id: str
    reason: str


@dataclass(frozen=True)
class Away:
    """The node did not come back at once: placements that waited for it continue without it."""

    node_id: str


@dataclass(frozen=True)
class Isolated:
    """Most nodes fell silent at once: none is lost; tell the operator."""

    node_ids: tuple[str, ...]
    sentence: str


@dataclass(frozen=True)
class Reunited:
    """Enough nodes are back; the grace of those still away begins again."""

    sentence: str


LeaseAction = NodeStateChanged | Lost | Away | Isolated | Reunited


@dataclass
class _Lease:
    state: NodeState
    due: float
    """When the lease ends (connected), or when the node is lost (disconnected)."""
    heard: float
    linked: bool = False
    """Its link is up as far as we know: it need not register again."""
    returning: float | None = None
    """The time until which it is expected back at once."""
    draining: bool = False
    goodbye: bool = False


class Leases:
    """The leases of a cluster's nodes. All times are in seconds; `now` is monotonic."""

    def __init__(
        self,
        *,
        ttl: float = 10.0,
        grace: float = 10.0,
        restart_grace: float = 60.0,
        hold: float = 5.0,
        isolation: float = 0.55,
    ) -> None:
        self.ttl, self.grace, self.restart_grace = ttl, grace, restart_grace
        self.hold, self.isolation = hold, isolation
        self._leases: dict[str, _Lease] = {}
        self._isolated = False
        self._called = 0.0

    def restarted(
        self, node_ids: Iterable[str], now: float, *, gone: Container[str] = ()
    ) -> list[LeaseAction]:
        """The manager has started and remembers these nodes; `gone` were not connected before."""
        self._called = now
        for node_id in node_ids:
            returning = None if node_id in gone else now + self.hold
            self._leases[node_id] = _Lease(
                NodeState.DISCONNECTED, now + self.restart_grace, now, returning=returning
            )
        return [NodeStateChanged(node_id, NodeState.DISCONNECTED) for node_id in self._leases]

    def connected(self, node_id: str, now: float) -> list[LeaseAction]:
        """The node registered."""
        self._oversleep(now)
        old = self._leases.get(node_id)
        draining = old is not None and old.draining
        state = NodeState.DRAINING if draining else NodeState.CONNECTED
        self._leases[node_id] = _Lease(state, now + self.ttl, now, True, draining=draining)
        actions: list[LeaseAction] = []
        if old is None or old.state is not state:
            actions.append(NodeStateChanged(node_id, state))
        return actions + self._reunite(now)

    def heard(self, node_id: str, now: float) -> list[LeaseAction]:
        """The node sent something; without a link it must register first."""
        self._oversleep(now)
        lease = self._leases.get(node_id)
        if lease is None or not lease.linked:
            return []
        if not _is_connected(lease):  # it was silent and its link held
            return self.connected(node_id, now)
        lease.heard, lease.due = now, now + self.ttl
        return []

    def disconnected(self, node_id: str, now: float) -> list[LeaseAction]:
        """The node's link went down."""
        self._oversleep(now)
        lease = self._leases.get(node_id)
        if lease is None:
            return []
        lease.linked = False
        if not _is_connected(lease):
            return []
        lease.returning = now + self.hold
        return self._leave(node_id, lease, lease.due + self.grace)

    def said_goodbye(self, node_id: str, now: float) -> list[LeaseAction]:
        """The node stops in good order."""
        self._oversleep(now)
        lease = self._leases.get(node_id)
        if lease is None or lease.state is NodeState.LOST:
            return []
        lease.goodbye, lease.linked = True, False
        return [
            *self._leave(node_id, lease, now + self.grace),
            *self._stop_expecting(node_id, lease),
        ]

    def draining(self, node_id: str, now: float) -> list[LeaseAction]:
        """The node takes no new work until it is restarted (`undrained`)."""
        self._oversleep(now)
        lease = self._leases[node_id]
        lease.draining = True
        if lease.state is not NodeState.CONNECTED:
            return []
        lease.state = NodeState.DRAINING
        return [NodeStateChanged(node_id, NodeState.DRAINING)]

    def undrained(self, node_id: str, now: float) -> list[LeaseAction]:
        self._oversleep(now)
        lease = self._leases[node_id]
        lease.draining = False
        if lease.state is not NodeState.DRAINING:
            return []
        lease.state = NodeState.CONNECTED
        return [NodeStateChanged(node_id, NodeState.CONNECTED)]

    def removed(self, node_id: str, now: float) -> list[LeaseAction]:
        self._oversleep(now)
        lease = self._leases.pop(node_id, None)
        if lease is None:
            return []
        actions: list[LeaseAction] = []
        if lease.state is not NodeState.LOST:
            actions.append(Lost(node_id, "it was removed from the cluster"))
        actions += self._stop_expecting(node_id, lease)
        return actions + self._reunite(now)

    def tick(self, now: float) -> list[LeaseAction]:
        self._oversleep(now)
        actions: list[LeaseAction] = []
        for node_id, lease in self._leases.items():
            if _is_connected(lease) and lease.due <= now:
                lease.returning = now + self.hold
                actions += self._leave(node_id, lease, lease.due + self.grace)
            if lease.returning is not None and lease.returning <= now:
                actions += self._stop_expecting(node_id, lease)
        overdue = {
            node_id: lease
            for node_id, lease in self._leases.items()
            if lease.state is NodeState.DISCONNECTED and lease.due <= now
        }
        if self._isolated or not overdue:
            return actions
        if self._is_isolated():
            self._isolated = True
            return [*actions, self._isolation()]
        for node_id, lease in overdue.items():
            lease.state = NodeState.LOST
            actions.append(NodeStateChanged(node_id, NodeState.LOST))
            actions.append(Lost(node_id, self._reason(lease, now)))
            actions += self._stop_expecting(node_id, lease)
        return actions

    def next_deadline(self) -> float | None:
        waiting = [
            lease.due
            for lease in self._leases.values()
            if _is_connected(lease)
            or (lease.state is NodeState.DISCONNECTED and not self._isolated)
        ]
        holds = [lease.returning for lease in self._leases.values() if lease.returning is not None]
        return min((*waiting, *holds), default=None)

    def state(self, node_id: str) -> NodeState:
        """Raises KeyError for a node that was never connected or is removed."""
        return self._leases[node_id].state

    def is_returning(self, node_id: str) -> bool:
        """Whether it is expected back at once (`NodeView.returning`)."""
        lease = self._leases.get(node_id)
        return lease is not None and lease.returning is not None

    def _leave(self, node_id: str, lease: _Lease, due: float) -> list[LeaseAction]:
        changed = lease.state is not NodeState.DISCONNECTED
        lease.state, lease.due = NodeState.DISCONNECTED, due
        return [NodeStateChanged(node_id, NodeState.DISCONNECTED)] if changed else []

    def _stop_expecting(self, node_id: str, lease: _Lease) -> list[LeaseAction]:
        if lease.returning is None:
            return []
        lease.returning = None
        return [Away(node_id)]

    def _oversleep(self, now: float) -> None:
        due, last = self.next_deadline(), self._called
        self._called = now
        if due is None or now - due < OVERSLEPT:
            return
        for lease in self._leases.values():
            lease.due += now - last
            if lease.returning is not None:
                lease.returning += now - last

    def _silent(self) -> list[str]:
        return [
            node_id
            for node_id, lease in self._leases.items()
            if lease.state is NodeState.DISCONNECTED and not lease.goodbye
        ]

    def _is_isolated(self) -> bool:
        silent = len(self._silent())
        connected = sum(map(_is_connected, self._leases.values()))
        return silent >= 2 and silent >= self.isolation * (silent + connected)

    def _isolation(self) -> Isolated:
        silent = self._silent()
        connected = sum(map(_is_connected, self._leases.values()))
        return Isolated(
            tuple(silent),
            f"{len(silent)} of {len(silent) + connected} nodes went silent at once: is the manager "
            "isolated? Nothing is placed again until enough of them are back; check its network, "
            "or remove nodes that are gone for good (manta node rm).",
        )

    def _reunite(self, now: float) -> list[LeaseAction]:
        if not self._isolated or self._is_isolated():
            return []
        self._isolated = False
        for node_id in self._silent():
            self._leases[node_id].due = now + self.grace
        return [Reunited("Enough nodes are back; those still away are lost after their grace.")]

    def _reason(self, lease: _Lease, now: float) -> str:
        if lease.goodbye:
            return "it stopped and did not come back"
        return f"no sign of life for {now - lease.heard:.0f} s"


def _is_connected(lease: _Lease) -> bool:
    return lease.state in (NodeState.CONNECTED, NodeState.DRAINING)
