"""What the manager's actors say to each other; none of it crosses the wire."""

from __future__ import annotations

from dataclasses import dataclass

from manta.actors import Ref
from manta.manager.auth.principals import Principal
from manta.manager.directory import SwarmEntry
from manta.manager.store.records import ClusterRecord, NodeRecord
from manta.manager.swarm_events import Assign, Revoke
from manta.protocol.node import Assignment, Message, Register, ToNode
from manta.protocol.user import SwarmInfo

# From the Gateway, which has checked who asks.


@dataclass(frozen=True, slots=True)
class FromUser:
    """Asked; answered with the message's `reply`."""

    message: Message
    user: Principal
    swarm_id: str = ""
    """What the name in the message stands for."""


@dataclass(frozen=True, slots=True)
class FromNode:
    """Told or asked, as the message itself."""

    message: Message
    node_id: str


@dataclass(frozen=True, slots=True)
class NodeCame:
    """Asked; answered with Registered."""

    record: NodeRecord
    message: Register
    link: Ref


@dataclass(frozen=True, slots=True)
class NodeAdded:
    record: NodeRecord


@dataclass(frozen=True, slots=True)
class NodeRemoved:
    """Asked; answered once nothing of the node is handled any more."""

    node_id: str


@dataclass(frozen=True, slots=True)
class StopNodeRequested:
    """Asked; answered with Ok."""

    node_id: str
    drain: bool


@dataclass(frozen=True, slots=True)
class ClusterChanged:
    """Asked; answered when it has taken effect."""

    record: ClusterRecord


@dataclass(frozen=True, slots=True)
class LoadSwarm:
    """Asked; answered once the swarm's actor runs: it may end when nobody asks for it."""

    swarm_id: str


# To the Gateway.


@dataclass(frozen=True, slots=True)
class SwarmCreated:
    entry: SwarmEntry


@dataclass(frozen=True, slots=True)
class SwarmRemoved:
    swarm_id: str


@dataclass(frozen=True, slots=True)
class CutNodes:
    """Their links are closed, so that they register anew and send again what is not
    acknowledged: how nodes and a restarted actor agree again."""

    node_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodesLeft:
    """They said goodbye, were lost, or did not come back in time."""

    node_ids: tuple[str, ...]


# Between a cluster and its swarms.


@dataclass(frozen=True, slots=True)
class Restored:
    """A swarm has read its log: this is how it stands."""

    swarm_id: str
    info: SwarmInfo
    desired: dict[str, tuple[Assignment, ...]]
    applied: dict[str, int]


@dataclass(frozen=True, slots=True)
class Orders:
    """What a swarm's durable events ask of the nodes; in this order."""

    swarm_id: str
    changes: tuple[Assign | Revoke, ...] = ()
    messages: tuple[tuple[str, ToNode], ...] = ()
    info: SwarmInfo | None = None
    """When it changed."""


@dataclass(frozen=True, slots=True)
class NodeGone:
    """To a swarm: give up what it ran there. Asked when someone must know that it was heard."""

    node_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class NodesMoved:
    """To a swarm: a node came, came back or changed."""


@dataclass(frozen=True, slots=True)
class ClusterStopped:
    """To a swarm."""

    by: str


# To Blobs.


@dataclass(frozen=True, slots=True)
class Sweep:
    """Delete what no swarm needs."""
