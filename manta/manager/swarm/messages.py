"""What a cluster and its swarms say to each other; none of it crosses the wire."""

from __future__ import annotations

import msgspec

from manta.manager.swarm.events import Assign, Revoke
from manta.protocol.node import Assignment, ToNode
from manta.protocol.user import SwarmInfo


class Restored(msgspec.Struct, frozen=True):
    """A swarm has read its log: this is how it stands."""

    swarm_id: str
    info: SwarmInfo
    desired: dict[str, tuple[Assignment, ...]]
    applied: dict[str, int]


class Orders(msgspec.Struct, frozen=True):
    """What a swarm's durable events ask of the nodes; in this order."""

    swarm_id: str
    changes: tuple[Assign | Revoke, ...] = ()
    messages: tuple[tuple[str, ToNode], ...] = ()
    info: SwarmInfo | None = None
    """When it changed."""
    kill: bool = False
    """It has ended, and what it runs is not to be asked to end first."""


class NodeGone(msgspec.Struct, frozen=True):
    """To a swarm: give up what it ran there. Asked when someone must know that it was heard."""

    node_id: str
    reason: str


class NodesMoved(msgspec.Struct, frozen=True):
    """To a swarm: a node came, came back or changed."""


class ClusterStopped(msgspec.Struct, frozen=True):
    """To a swarm."""

    by: str
