"""Decides which nodes of a cluster are connected, and when one is lost.

Theory of operation. A node holds a lease of `ttl` seconds, renewed by everything it sends.

    CONNECTED, DRAINING  --lease expires, link down, or goodbye-->          DISCONNECTED
    DISCONNECTED         --`grace` over, and most nodes are connected-->    LOST
    DISCONNECTED, LOST   --registers, or is heard over a link that held-->  CONNECTED, DRAINING
    CONNECTED            --drained-->                                       DRAINING
    DRAINING             --undrained-->                                     CONNECTED
    any                  --removed-->                                       forgotten

A connected node that misses a heartbeat is *silent* from `quiet` seconds on: nothing changes yet,
but `silences` tells users of it, as of every node that is away and not LOST.

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
from dataclasses import dataclass, field

import msgspec

from manta.manager.views import Silence, Why
from manta.protocol.states import NodeState

REMOVED = "it was removed from the cluster"
OVERSLEPT = 1.0
"""Seconds after a deadline beyond which the manager is taken to have been suspended."""


class NodeStateChanged(msgspec.Struct, frozen=True):
    node_id: str
    state: NodeState


class Lost(msgspec.Struct, frozen=True):
    """Tell the swarms (NodeLost): what the node ran has to be placed again."""

    node_id: str
    reason: str


class Away(msgspec.Struct, frozen=True):
    """The node did not come back at once: placements that waited for it continue without it."""

    node_id: str


class Silent(msgspec.Struct, frozen=True):
    """The node missed a heartbeat, or is heard again: tell users."""

    node_id: str


class Isolated(msgspec.Struct, frozen=True):
    """Most nodes fell silent at once: none is lost; tell the operator."""

    node_ids: tuple[str, ...]
    sentence: str


class Reunited(msgspec.Struct, frozen=True):
    """Enough nodes are back; the grace of those still away begins again."""

    sentence: str


LeaseAction = NodeStateChanged | Lost | Away | Silent | Isolated | Reunited


def terms(lease: float) -> dict[str, float]:
    """What `Leases` takes, for nodes that are lost after `lease` seconds without a sign of life."""
    ttl = min(10.0, lease / 2)
    interval = heartbeat_interval(lease)
    return {
        "ttl": ttl,
        "grace": lease - ttl,
        "restart_grace": max(60.0, lease),
        "quiet": 1.5 * interval,
    }


def heartbeat_interval(lease: float) -> float:
    """Seconds between a node's heartbeats: several fit into half a lease."""
    return min(3.0, 0.15 * lease)


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
    awaited: bool = False
    """It has not been heard since the manager started."""
    silent: bool = False
    """It is connected and missed a heartbeat."""

    @property
    def is_connected(self) -> bool:
        return self.state in (NodeState.CONNECTED, NodeState.DRAINING)


@dataclass(eq=False)
class Leases:
    """The leases of a cluster's nodes. All times are in seconds; `now` is monotonic."""

    ttl: float = 10.0
    grace: float = 10.0
    restart_grace: float = 60.0
    hold: float = 5.0
    quiet: float = 4.5
    isolation: float = 0.55
    _leases: dict[str, _Lease] = field(init=False, default_factory=dict)
    _isolated: bool = field(init=False, default=False)
    _called: float = field(init=False, default=0.0)

    def restarted(
        self, node_ids: Iterable[str], now: float, *, gone: Container[str] = ()
    ) -> list[LeaseAction]:
        """The manager has started and remembers these nodes; `gone` were not connected before."""
        self._called = now
        for node_id in node_ids:
            returning = None if node_id in gone else now + self.hold
            self._leases[node_id] = _Lease(
                NodeState.DISCONNECTED,
                now + self.restart_grace,
                now,
                returning=returning,
                awaited=node_id not in gone,
            )
        return [NodeStateChanged(node_id, NodeState.DISCONNECTED) for node_id in self._leases]

    def connected(self, node_id: str, now: float) -> list[LeaseAction]:
        """The node registered."""
        old = self._lease(node_id, now)
        draining = old is not None and old.draining
        state = NodeState.DRAINING if draining else NodeState.CONNECTED
        self._leases[node_id] = _Lease(state, now + self.ttl, now, True, draining=draining)
        changed = old is None or old.state is not state
        return [*([NodeStateChanged(node_id, state)] if changed else ()), *self._reunite(now)]

    def heard(self, node_id: str, now: float) -> list[LeaseAction]:
        """The node sent something; without a link it must register first."""
        lease = self._lease(node_id, now)
        if lease is None or not lease.linked:
            return []
        if not lease.is_connected:  # it was silent and its link held
            return self.connected(node_id, now)
        lease.heard, lease.due = now, now + self.ttl
        if not lease.silent:
            return []
        lease.silent = False
        return [Silent(node_id)]

    def disconnected(self, node_id: str, now: float) -> list[LeaseAction]:
        """The node's link went down."""
        lease = self._lease(node_id, now)
        if lease is not None:
            lease.linked = False
        return self._drop(node_id, lease, now) if lease and lease.is_connected else []

    def said_goodbye(self, node_id: str, now: float) -> list[LeaseAction]:
        """The node stops in good order."""
        lease = self._lease(node_id, now)
        if lease is None or lease.state is NodeState.LOST:
            return []
        lease.goodbye, lease.linked, lease.due = True, False, now + self.grace
        return [
            *self._enter(node_id, lease, NodeState.DISCONNECTED),
            *self._stop_expecting(node_id, lease),
        ]

    def set_draining(self, node_id: str, now: float, *, draining: bool) -> list[LeaseAction]:
        """A draining node takes no new work."""
        self._oversleep(now)
        lease = self._leases[node_id]
        lease.draining = draining
        state = NodeState.DRAINING if draining else NodeState.CONNECTED
        return self._enter(node_id, lease, state) if lease.is_connected else []

    def removed(self, node_id: str, now: float) -> list[LeaseAction]:
        lease = self._lease(node_id, now)
        if lease is None:
            return []
        del self._leases[node_id]
        lost = [Lost(node_id, REMOVED)]
        return [
            *(lost if lease.state is not NodeState.LOST else ()),
            *self._stop_expecting(node_id, lease),
            *self._reunite(now),
        ]

    def tick(self, now: float) -> list[LeaseAction]:
        self._oversleep(now)
        actions: list[LeaseAction] = []
        for node_id, lease in self._leases.items():
            if lease.is_connected and lease.due <= now:
                actions += self._drop(node_id, lease, now)
            elif lease.is_connected and not lease.silent and lease.heard + self.quiet <= now:
                lease.silent = True
                actions.append(Silent(node_id))
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
            silent, connected = self._silent(), self._connected()
            sentence = (
                f"{len(silent)} of {len(silent) + connected} nodes went silent at once: is the "
                "manager isolated? Nothing is placed again until enough of them are back; check "
                "its network, or remove nodes that are gone for good (manta node rm)."
            )
            return [*actions, Isolated(tuple(silent), sentence)]
        for node_id, lease in overdue.items():
            actions += self._enter(node_id, lease, NodeState.LOST)
            silence = f"no sign of life for {now - lease.heard:.0f} s"
            reason = "it stopped and did not come back" if lease.goodbye else silence
            actions.append(Lost(node_id, reason))
            actions += self._stop_expecting(node_id, lease)
        return actions

    def next_deadline(self) -> float | None:
        waiting = [
            min(lease.due, lease.heard + self.quiet)
            if lease.is_connected and not lease.silent
            else lease.due
            for lease in self._leases.values()
            if lease.is_connected or (lease.state is NodeState.DISCONNECTED and not self._isolated)
        ]
        holds = [lease.returning for lease in self._leases.values() if lease.returning is not None]
        return min((*waiting, *holds), default=None)

    def state(self, node_id: str) -> NodeState:
        """Raises KeyError for a node that was never connected or is removed."""
        return self._leases[node_id].state

    @property
    def all_lost(self) -> bool:
        return all(lease.state is NodeState.LOST for lease in self._leases.values())

    def silences(self) -> dict[str, Silence]:
        """Those that are not heard from now, and not LOST."""
        return {
            node_id: self._silence(lease)
            for node_id, lease in self._leases.items()
            if lease.silent or lease.state is NodeState.DISCONNECTED
        }

    def _silence(self, lease: _Lease) -> Silence:
        lost_at = lease.due + self.grace if lease.is_connected else lease.due
        why: Why = "silent"
        if lease.goodbye:
            why = "stopped"
        elif lease.awaited:
            why = "awaited"
        elif not (lease.is_connected or lease.linked):
            why = "unlinked"
        return Silence(lease.heard, None if self._isolated else lost_at, why)

    def is_returning(self, node_id: str) -> bool:
        """Whether it is expected back at once (`NodeView.returning`)."""
        lease = self._leases.get(node_id)
        return lease is not None and lease.returning is not None

    def _lease(self, node_id: str, now: float) -> _Lease | None:
        self._oversleep(now)
        return self._leases.get(node_id)

    def _drop(self, node_id: str, lease: _Lease, now: float) -> list[LeaseAction]:
        """A connected node is silent, or its link is down."""
        lease.returning = now + self.hold
        lease.due += self.grace
        lease.silent = False
        return self._enter(node_id, lease, NodeState.DISCONNECTED)

    def _enter(self, node_id: str, lease: _Lease, state: NodeState) -> list[LeaseAction]:
        if lease.state is state:
            return []
        lease.state = state
        return [NodeStateChanged(node_id, state)]

    def _stop_expecting(self, node_id: str, lease: _Lease) -> list[LeaseAction]:
        if lease.returning is None:
            return []
        lease.returning = None
        return [Away(node_id)]

    def _oversleep(self, now: float) -> None:
        last, self._called = self._called, now
        if now - last < OVERSLEPT:  # as nearly always: the deadlines need not be looked at
            return
        due = self.next_deadline()
        if due is None or now - due < OVERSLEPT:
            return
        for lease in self._leases.values():
            lease.due += now - last
            lease.heard += now - last
            if lease.returning is not None:
                lease.returning += now - last

    def _silent(self) -> list[str]:
        return [
            node_id
            for node_id, lease in self._leases.items()
            if lease.state is NodeState.DISCONNECTED and not lease.goodbye
        ]

    def _connected(self) -> int:
        return sum(lease.is_connected for lease in self._leases.values())

    def _is_isolated(self) -> bool:
        silent = len(self._silent())
        return silent >= 2 and silent >= self.isolation * (silent + self._connected())

    def _reunite(self, now: float) -> list[LeaseAction]:
        if not self._isolated or self._is_isolated():
            return []
        self._isolated = False
        for node_id in self._silent():
            self._leases[node_id].due = now + self.grace
        return [Reunited("Enough nodes are back; those still away are lost after their grace.")]
