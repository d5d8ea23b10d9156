"""Messages between a cluster and its swarms; none of them crosses the wire."""

from __future__ import annotations

import msgspec

from manta.manager.swarm.events import Assign, Began, Freed, Needed, Revoke
from manta.protocol.node import Assignment, ToNode
from manta.protocol.user import SwarmInfo


class Restored(msgspec.Struct, frozen=True):
    """To the cluster: a swarm has read its log, and this is its state."""

    swarm_id: str
    info: SwarmInfo
    desired: dict[str, tuple[Assignment, ...]]
    applied: dict[str, int]
    given: frozenset[str] = frozenset()
    """Nodes that were ever given an attempt of it."""
    members: dict[str, int] = {}
    """Nodes that were given one in this iteration or the one before, with the last of the two."""
    gone: frozenset[str] = frozenset()
    """Nodes that were lost and have not been heard from since."""
    epoch: str = ""
    """Names the timeline of its log."""
    freed: dict[str, tuple[str, ...]] = {}
    """By node: digests of the results that stayed there and that users have deleted."""


class Orders(msgspec.Struct, frozen=True):
    """To the cluster: what a swarm's durable events ask of the nodes, in this order."""

    swarm_id: str
    epoch: str = ""
    """Names the timeline of its log."""
    changes: tuple[Assign | Began | Revoke | Freed | Needed, ...] = ()
    messages: tuple[tuple[str, ToNode], ...] = ()
    info: SwarmInfo | None = None
    """None if it did not change."""
    kill: bool = False
    """The swarm has ended, and what it runs is killed without being asked to end."""


class NodeGone(msgspec.Struct, frozen=True):
    """To a swarm: the node is lost, so give up what runs there."""

    node_id: str
    reason: str


class NodeRegistered(msgspec.Struct, frozen=True):
    """To a swarm: a node has registered, whose journal has `last` entries, and which was told that
    it is held up to the entry `upto`."""

    node_id: str
    upto: int
    last: int


class NodesMoved(msgspec.Struct, frozen=True):
    """To a swarm: a node came, came back or changed. Asked by who must know that it was handled."""


class ClusterStopped(msgspec.Struct, frozen=True):
    """To a swarm: it has to end. `by` is named in its reason."""

    by: str
