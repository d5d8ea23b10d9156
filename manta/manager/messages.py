"""What the manager's actors say to each other; none of it crosses the wire."""

from __future__ import annotations

import msgspec

from manta.actors import Ref
from manta.manager.auth.principals import Principal
from manta.manager.directory import SwarmEntry
from manta.manager.store.records import ClusterRecord, NodeRecord
from manta.protocol.node import Instance, Message, Register

# From the Gateway, which has checked who asks.


class FromUser(msgspec.Struct, frozen=True):
    """Asked; answered with the message's `reply`."""

    message: Message
    user: Principal
    swarm_id: str = ""
    """What the name in the message stands for."""


class FromNode(msgspec.Struct, frozen=True):
    """Told or asked, as the message itself."""

    message: Message
    node_id: str


class CheckPeer(msgspec.Struct, frozen=True):
    """Asked; answered with Peer, or refused when the two are no neighbors."""

    instance: Instance
    node_id: str
    alias: str


class NodeCame(msgspec.Struct, frozen=True):
    """Asked; answered with Registered."""

    record: NodeRecord
    message: Register
    link: Ref


class NodeAdded(msgspec.Struct, frozen=True):
    record: NodeRecord


class NodeRemoved(msgspec.Struct, frozen=True):
    """Asked; answered once nothing of the node is handled any more."""

    node_id: str


class StopNodeRequested(msgspec.Struct, frozen=True):
    """Asked; answered with Ok."""

    node_id: str
    drain: bool


class NodeTreeRequested(msgspec.Struct, frozen=True):
    """Asked; answered with the node's Tree."""

    node_id: str
    after: str


class ClusterChanged(msgspec.Struct, frozen=True):
    """Asked; answered when it has taken effect."""

    record: ClusterRecord


class LoadSwarm(msgspec.Struct, frozen=True):
    """Asked; answered once the swarm's actor runs: it may end when nobody asks for it."""

    swarm_id: str


# To the Gateway.


class SwarmCreated(msgspec.Struct, frozen=True):
    entry: SwarmEntry


class SwarmRemoved(msgspec.Struct, frozen=True):
    swarm_id: str


class CutNodes(msgspec.Struct, frozen=True):
    """Their links are closed, so that they register anew and send again what is not
    acknowledged: how nodes and a restarted actor agree again."""

    node_ids: tuple[str, ...]


class NodesLeft(msgspec.Struct, frozen=True):
    """They said goodbye, were lost, or did not come back in time."""

    node_ids: tuple[str, ...]


# To Blobs.


class Sweep(msgspec.Struct, frozen=True):
    """Delete what nobody needs."""


class SweepLater(msgspec.Struct, frozen=True):
    """Something was released: sweep as soon as what lies unnamed may go."""
