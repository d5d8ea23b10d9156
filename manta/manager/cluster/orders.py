"""What the nodes of a cluster are to run, and what they are told of each other.

A message to a node that is away may be lost: when the node registers it gets its whole desired
state and the versions of its directories, and it sends again what was not acknowledged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import msgspec

from manta.actors import Monitor, Ref, Supervisor, Unreachable
from manta.manager.cluster.desired import DesiredStates
from manta.manager.cluster.peers import Directories, Known
from manta.manager.cluster.spreads import MANAGER, WAIT, Spreads
from manta.manager.store.records import NodeRecord
from manta.manager.swarm.events import Assign, Began, Freed, Needed
from manta.manager.swarm.messages import Orders, Restored
from manta.protocol.node import Heartbeat, JournalAck, Load, ToNode
from manta.protocol.peers import PeerLink
from manta.protocol.roster import RosterTold
from manta.protocol.spread import BlobFrom, BlobTold, WantBlob
from manta.transports.errors import LocalTransportError


@dataclass
class ClusterNode:
    record: NodeRecord
    blob_port: int = 0
    link: Ref | None = None
    monitor: Monitor | None = None
    load: Load = field(default_factory=Load)
    last_seen: float = 0.0
    asked_to_stop: float = -math.inf
    """When it was last asked to stop or drain; later heartbeats say whether it does."""
    trouble: str = ""
    """Why it takes no new work, as it says itself."""
    contest: str = ""
    contested_at: float = -math.inf
    acknowledged: dict[str, int] = field(default_factory=dict)
    """The last durable journal entry of each running swarm."""
    links: tuple[PeerLink, ...] = ()
    """With other nodes, as it told last."""
    rosters: dict[str, int] = field(default_factory=dict)
    """By swarm: the version that it was told last over this link."""

    @property
    def name(self) -> str:
        return f"{self.record.alias} ({self.record.id})"

    def heard(self, message: Heartbeat, at: float) -> None:
        """`at`: seconds since the epoch."""
        self.load, self.last_seen = message.load, at
        if message.links is not None:
            self.links = message.links
        if message.capabilities is not None:
            self.record = msgspec.structs.replace(self.record, capabilities=message.capabilities)

    @property
    def known(self) -> Known:
        """As other nodes are told of it."""
        one = self.record
        return Known(one.id, one.alias, one.key, one.peer_addresses, one.seen_at, self.blob_port)


class Frees(Protocol):
    """What nodes need not keep of results that stay on them."""

    def restored(self, swarm_id: str, freed: Mapping[str, Collection[str]]) -> None:
        """By node, the digests of all that the swarm has freed according to its log."""

    def add(self, node_id: str, swarm_id: str, digests: Collection[str]) -> None: ...

    def needed(self, node_id: str, swarm_id: str, digest: str) -> None:
        """Another result has the value."""


@dataclass
class NodeOrders:
    """`on_stored` is called when more of a node's journal is durable: with the ids of node and
    swarm, and the number of the entry."""

    actor: Supervisor
    nodes: dict[str, ClusterNode]
    on_stored: Callable[[str, str, int], None]
    frees: Frees
    desired: DesiredStates = field(default_factory=DesiredStates)
    peers: Directories = field(default_factory=Directories)
    spreads: Spreads = field(default_factory=Spreads)
    running: set[str] = field(default_factory=set)
    """Swarms that do."""

    def __post_init__(self) -> None:
        for node in self.nodes.values():
            self.peers.here(node.known)

    def restored(self, message: Restored, *, runs: bool) -> None:
        """Replaces what was known of the swarm by its state according to its log."""
        swarm_id = message.swarm_id
        if runs:
            self.running.add(swarm_id)
            self.desired.swarm_began(swarm_id)
            self.peers.restored(swarm_id, message.epoch, message.members)
            for node_id in message.gone:
                if (node := self.nodes.get(node_id)) is not None and node.link is None:
                    self.peers.lost(node_id, "it was lost before the manager was restarted")
        given = message.given & self.nodes.keys()
        self.desired.restore(swarm_id, message.desired, self.nodes, given)
        self.frees.restored(swarm_id, message.freed)
        for node_id, upto in message.applied.items():
            if runs and (node := self.nodes.get(node_id)):
                node.acknowledged[swarm_id] = upto
        self.flush()

    def apply(self, orders: Orders) -> None:
        swarm_id = orders.swarm_id
        if swarm_id in self.running:
            self.peers.begins(swarm_id, orders.epoch)
        for change in orders.changes:
            if change.node_id not in self.nodes:
                continue  # it was removed, and the swarm is told so
            if isinstance(change, Assign):
                self.desired.assign(change.node_id, change.assignment)
                self.peers.assigned(swarm_id, change.node_id, change.assignment.instance.iteration)
            elif isinstance(change, Began):
                self.desired.began(change.node_id, change.instance)
            elif isinstance(change, Freed):
                self.frees.add(change.node_id, swarm_id, change.digests)
            elif isinstance(change, Needed):  # before what tells of the other is acknowledged
                self.frees.needed(change.node_id, swarm_id, change.digest)
            else:
                self.desired.revoke(change.node_id, change.instance)
        if orders.changes:
            self.flush()
        else:
            self.tell_peers()
        for node_id, message in orders.messages:
            node = self.nodes.get(node_id)
            runs = swarm_id in self.running
            if node is not None and runs and isinstance(message, JournalAck):
                node.acknowledged[swarm_id] = message.upto
                self.on_stored(node_id, swarm_id, message.upto)
            self.send(node_id, message)

    def swarm_began(self, swarm_id: str, epoch: str) -> None:
        self.running.add(swarm_id)
        self.desired.swarm_began(swarm_id)
        self.peers.begins(swarm_id, epoch)
        self.flush()

    def swarm_ended(self, swarm_id: str, *, kill: bool = False) -> None:
        self.running.discard(swarm_id)
        self.desired.swarm_ended(swarm_id, kill=kill)
        self.peers.ended(swarm_id)
        self.spreads.ended(swarm_id)
        for node in self.nodes.values():
            node.acknowledged.pop(swarm_id, None)
            node.rosters.pop(swarm_id, None)
        self.flush()

    def given(self, node_id: str) -> Collection[str]:
        """The swarms of which the node was ever given an attempt, and which have not ended."""
        return self.desired.given(node_id)

    def removed(self, node_id: str, why: str) -> None:
        """The node was: the others are told at once."""
        self.desired.forget(node_id)
        self.spreads.gone(node_id)
        self.peers.removed(node_id, why)
        self.flush()

    def source_of(self, node_id: str, message: WantBlob, now: float) -> BlobFrom:
        """Whom the node, which has a part in the swarm, is to fetch a blob from. If a holder is
        named, a result of the swarm stays there."""
        if message.holder and self.peers.has_part(message.swarm_id, message.holder):
            self.spreads.made(message.swarm_id, message.digest, message.holder, now)
        named = self.spreads.want(
            message.swarm_id,
            message.digest,
            node_id,
            now,
            usable=partial(self.peers.gives, message.swarm_id, node_id),
            failed=message.failed,
            whole=message.whole,
        )
        if named is None:
            return BlobFrom(wait=WAIT)
        return BlobFrom() if named == MANAGER else BlobFrom(self.peers.giver(node_id, named))

    def told(self, node_id: str, message: BlobTold, now: float) -> None:
        """The node has a blob, or does not get it."""
        if self.peers.has_part(message.swarm_id, node_id):
            at, digest = message.swarm_id, message.digest
            self.spreads.told(at, digest, node_id, now, held=message.held)

    def flush(self) -> None:
        """Sends what has changed; first what is to run."""
        for node_id, change in self.desired.flush().items():
            self.send(node_id, change)
        self.tell_peers()

    def tell_peers(self) -> None:
        for node_id, news in self.peers.flush():
            self.send(node_id, news)

    def send(self, node_id: str, message: ToNode) -> None:
        node = self.nodes.get(node_id)
        if node is None or node.link is None:
            return
        if isinstance(message, RosterTold):
            node.rosters[message.swarm_id] = message.version
        try:
            node.link.tell(message)
        except Unreachable as error:
            self.actor.log.debug("%s not sent: %s", type(message).__name__, error)
        except LocalTransportError as error:
            self.actor.log.error("node %s was not told what to run: %s", node.name, error)
