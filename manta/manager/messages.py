"""Messages between the manager's actors; none of them crosses the wire."""

from __future__ import annotations

import msgspec

from manta.actors import Ref, Refused
from manta.manager.auth.principals import Principal
from manta.manager.directory import SwarmEntry
from manta.manager.store.records import ClusterRecord, NodeRecord
from manta.protocol.exchange import ResolvedPeer
from manta.protocol.node import Instance, Message, Register
from manta.protocol.values import BlobRef

# From the Gateway, which has checked the sender.


class FromUser(msgspec.Struct, frozen=True):
    """Asked; answered with the message's `reply`."""

    message: Message
    user: Principal
    target_id: str = ""
    """The cluster, node or swarm that the message names."""


class FromNode(msgspec.Struct, frozen=True):
    """Told or asked, as the message itself is."""

    message: Message
    node_id: str
    found: ResolvedPeer | Refused | None = None
    """What the Gateway knows of the nodes that the message names. It is told only to a node that
    runs the instance of which the message is."""


class NodeCame(msgspec.Struct, frozen=True):
    """Asked; answered with Registered."""

    record: NodeRecord
    message: Register
    link: Ref


class NodeContested(msgspec.Struct, frozen=True):
    """Another daemon with the node's key was refused."""

    node_id: str
    sentence: str


class NodeAdded(msgspec.Struct, frozen=True):
    record: NodeRecord


class NodeRemoved(msgspec.Struct, frozen=True):
    """Asked; answered once no message of the node will be handled any more."""

    node_id: str


class ClusterChanged(msgspec.Struct, frozen=True):
    """Asked; answered once it has taken effect."""

    record: ClusterRecord


class LoadSwarm(msgspec.Struct, frozen=True):
    """Asked; answered once the swarm's actor runs. It may have ended because nobody used it."""

    swarm_id: str


class AskStacks(msgspec.Struct, frozen=True):
    """To a cluster; answered with `node.Stacks`, or refused by the node."""

    node_id: str
    instance: Instance


# To the Gateway.


class SwarmCreated(msgspec.Struct, frozen=True):
    entry: SwarmEntry


class SwarmRemoved(msgspec.Struct, frozen=True):
    swarm_id: str


class CutNodes(msgspec.Struct, frozen=True):
    """Closes the links of these nodes, so that they register again and resend what was not
    acknowledged. That is how nodes and a restarted actor come to agree again."""

    node_ids: tuple[str, ...]


class NodesLeft(msgspec.Struct, frozen=True):
    """These nodes said goodbye, were lost, or did not come back in time."""

    node_ids: tuple[str, ...]


# To Blobs.


class Sweep(msgspec.Struct, frozen=True):
    """Asked or told: deletes the blobs that nobody needs. Answered with their number."""


class SweepLater(msgspec.Struct, frozen=True):
    """These blobs were released: delete them once those who were just told of them have had time
    to fetch them, unless they are named again."""

    blobs: tuple[BlobRef, ...]


class Noticed(msgspec.Struct, frozen=True):
    """To a cluster and from there to its swarms: what keeps them waiting may have changed
    (`notices`)."""
