"""Keeps the nodes of one cluster: their leases, links and loads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import InitVar, dataclass
from typing import Any, assert_never

import msgspec

from manta.actors import (
    ActorError,
    Down,
    Ref,
    Refused,
    Reply,
    Supervisor,
    Timer,
)
from manta.manager.cluster import unknown
from manta.manager.cluster.backlogs import Backlogs
from manta.manager.cluster.frees import Frees
from manta.manager.cluster.lease import (
    REMOVED,
    Away,
    Isolated,
    LeaseAction,
    Leases,
    Lost,
    NodeStateChanged,
    Reunited,
    Silent,
    heartbeat_interval,
    terms,
)
from manta.manager.cluster.orders import ClusterNode, NodeOrders
from manta.manager.cluster.recalls import Recalls
from manta.manager.cluster.shown import ShownNodes
from manta.manager.cluster.unknown import UnknownSwarms
from manta.manager.context import Context
from manta.manager.directory import not_run
from manta.manager.messages import CutNodes, NodeCame, NodesLeft
from manta.manager.store.records import NodeRecord
from manta.manager.swarm.messages import NodeRegistered
from manta.manager.views import ClusterView
from manta.protocol.clusters import NodeLinks
from manta.protocol.codes import Code
from manta.protocol.node import (
    Desired,
    Heartbeat,
    HeartbeatReply,
    ReadStacks,
    Registered,
    StopNode,
)
from manta.protocol.paths import GATEWAY
from manta.protocol.peers import FetchPeers, Peers
from manta.protocol.spread import BlobFrom, WantBlob
from manta.protocol.states import NodeState, SwarmState
from manta.protocol.tree import ReadTree
from manta.protocol.values import BlobRef

ANSWER_TIMEOUT = 10.0
"""Seconds in which a node answers."""
CONTEST = 30.0
"""Seconds for which it is told that another daemon wanted to be a node; it asks more often."""
UNTOLD = -1
"""The version of a roster of which a node that was lost is told no more, until it asks again."""
TROUBLE = 500
"""Characters of why a node takes no work."""


class LeaseTick(msgspec.Struct, frozen=True):
    pass


@dataclass
class ClusterNodes:
    actor: Supervisor
    context: Context
    view: ClusterView
    records: InitVar[Iterable[NodeRecord]]
    on_lost: Callable[[str, str], None]
    on_moved: Callable[[], None]
    on_noticed: Callable[[], None]
    on_registered: Callable[[str, NodeRegistered], None]
    """Called with the swarm's id."""

    def __post_init__(self, records: Iterable[NodeRecord]) -> None:
        self._nodes = {record.id: ClusterNode(record) for record in records}
        self._frees = Frees(self.actor, self._nodes)
        self.orders = NodeOrders(self.actor, self._nodes, self._stored, self._frees)
        self.view.share = self.orders.peers.share
        self._interval = heartbeat_interval(self.context.lease)
        self._backlogs = Backlogs(self._interval)
        self._leases = Leases(**terms(self.context.lease))
        self._shown = ShownNodes(self.context, self.view, self._nodes, self._leases)
        self._timer: Timer | None = None  # type: ignore[type-arg]
        self._noticed: object = None
        self._isolation = ""
        self.unknown = UnknownSwarms()
        self.recalls = Recalls(
            self.actor, self.context, self.view, self._nodes, self._leases.is_returning
        )
        self.view.notice = ""
        self.view.silences, self.view.behind = {}, {}
        gone = {node_id for node_id, node in self._nodes.items() if not node.record.here}
        self._apply(self._leases.restarted(self._nodes, self._now(), gone=gone))

    def _now(self) -> float:
        return self.actor.clock.now()

    # Nodes that come and go.

    def added(self, record: NodeRecord) -> None:
        if known := self._nodes.get(record.id):
            known.record = record
        else:
            self._nodes[record.id] = ClusterNode(record)
        self._shown.show(record.id)
        self.context.revisions.clusters.changed(record.cluster_id)  # its number of nodes

    def came(self, message: NodeCame) -> Registered:
        """Registers the node with its new link; the one before, if any, is forgotten."""
        node_id, register = message.record.id, message.message
        node = self._nodes.setdefault(node_id, ClusterNode(message.record))
        node.record = message.record
        if node.monitor is not None:
            node.monitor.cancel()
        node.link = message.link
        node.rosters.clear()
        node.links = ()
        self.unknown.forget(node_id)
        node.monitor = self.actor.monitor(message.link)
        node.load, node.last_seen = register.load, self.actor.clock.wall()
        node.trouble = register.trouble[:TROUBLE]
        node.blob_port = register.blob_port
        self.orders.peers.here(node.known)
        now = self._now()
        self._apply(self._leases.connected(node_id, now))
        self._apply(self._leases.set_draining(node_id, now, draining=register.draining))
        self._backlogs.registered(node_id, self._ahead(node, register.journals), now)
        self._shown.show(node_id)
        given = self.orders.running & {*self.orders.given(node_id)}
        for swarm_id in {*register.journals, *register.acknowledged, *given}:
            if swarm_id in self.view.swarms:
                upto = register.acknowledged.get(swarm_id, 0)
                last = max(upto, register.journals.get(swarm_id, 0))
                self.on_registered(swarm_id, NodeRegistered(node_id, upto, last))
        self._note_unknown(node_id, {*register.journals, *register.acknowledged}, now)
        self._publish_notices()
        self.on_moved()
        self.orders.tell_peers()
        return Registered(
            node_id=node_id,
            cluster_id=message.record.cluster_id,
            alias=message.record.alias,
            heartbeat_interval=self._interval,
            bulk_address=self.context.bulk.address,
            has_rooms=True,
            has_rosters=True,
            has_spreads=True,
            has_audit=True,
            has_holds=True,
            directories=self.orders.peers.versions(node_id),
            desired=self.orders.desired.full(node_id),
            acknowledged=dict(node.acknowledged),
        )

    def _note_unknown(self, node_id: str, swarms: set[str], now: float) -> None:
        count = self.unknown.report(node_id, swarms - self.view.swarms.keys(), now)
        if count:
            self.actor.log.error("%s", unknown.told([self._name(node_id)], count))
            self.actor.after(unknown.TOLD, LeaseTick())

    def heartbeat(self, node_id: str, message: Heartbeat) -> HeartbeatReply:
        node = self._registered(node_id)
        node.heard(message, self.actor.clock.wall())
        now = self._now()
        back = self._leases.heard(node_id, now)
        # One that was just told to stop has yet to hear it.
        if message.draining or now >= node.asked_to_stop + ANSWER_TIMEOUT:
            back += self._leases.set_draining(node_id, now, draining=message.draining)
        if back:
            self._apply(back)
        if (trouble := message.trouble[:TROUBLE]) != node.trouble:
            self._troubled(node, trouble)
        if node.contest and now - node.contested_at > CONTEST:
            node.contest = ""
            self._shown.show(node_id)
        if self._backlogs.heard(node_id, self._ahead(node, message.journals), now):
            self._publish_notices()
        # Heartbeats are frequent: one that changes nothing only postpones a deadline, so that the
        # timer comes early enough as it is, and only what the node told is replaced.
        self._shown.heard(node_id)
        if back or message.capabilities:  # silent for long, began or ended draining, or has others
            self.on_moved()
        self._frees.tell(node_id)
        version = self.orders.desired.version(node_id)
        directories = self.orders.peers.versions(node_id)
        unknown_ = [one for one in message.holds if one not in self.view.swarms]
        over, is_news = self.unknown.holds(node_id, unknown_)
        if is_news:
            said = unknown.kept([self._name(node_id)], len(unknown_) - len(over))
            self.actor.log.error("%s", said)
            self._publish_notices()
        ended = tuple(filter(self._has_ended, message.spools))
        return HeartbeatReply(version, node.contest, directories, dict(node.rosters), over, ended)

    def _has_ended(self, swarm_id: str) -> bool:
        """Not of one that is not known: a newer database may be put back in which it runs."""
        info = self.view.swarms.get(swarm_id)
        if info is None:
            return self.unknown.was_removed(swarm_id)
        return SwarmState(info.status).final

    def links(self, node_id: str) -> NodeLinks:
        """With other nodes."""
        node = self._nodes[node_id]
        links = node.links if node.link is not None else ()
        return NodeLinks(
            node_id, node.record.alias, tuple(sorted(links, key=lambda one: one.alias))
        )

    def _troubled(self, node: ClusterNode, trouble: str) -> None:
        node.trouble = trouble
        said = f"{trouble}: it gets no new work" if trouble else "can take work again"
        self.actor.log.warning("node %s %s", self._name(node.record.id), said)
        self._shown.show(node.record.id)
        self.on_moved()

    def contested(self, node_id: str, sentence: str) -> None:
        if node := self._nodes.get(node_id):
            node.contest, node.contested_at = sentence, self._now()
            self._shown.show(node_id)

    def full(self, node_id: str, version: int, after: int) -> Desired:
        self._registered(node_id)
        return self.orders.desired.full(node_id, version, after)

    def directory(self, node_id: str, message: FetchPeers) -> Peers:
        """Raises Refused."""
        self._registered(node_id)
        at = message.swarm_id
        page = self.orders.peers.page(node_id, at, message.version, message.after)
        if page is None:
            raise not_run(at)
        return page

    def source_of(self, node_id: str, message: WantBlob, reply: Reply) -> None:
        """Raises Refused."""
        node, at = self._registered(node_id), message.swarm_id
        if not self.orders.peers.has_part(at, node_id):
            raise not_run(at)
        if message.holder:
            self.recalls.check(at, BlobRef(message.digest, message.size), message.holder)
        recalled = message.holder and message.recall
        found = None if recalled else self.orders.source_of(node_id, message, self._now())
        if message.holder and found in (None, BlobFrom()):
            self.recalls.for_node(node.record, message, reply)
        else:
            reply.set(found)

    def _registered(self, node_id: str) -> ClusterNode:
        node = self._nodes.get(node_id)
        if node is None or node.link is None:
            # It registered before this actor started.
            raise Refused(Code.UNAVAILABLE, "The manager was restarted; register again.")
        return node

    def goodbye(self, node_id: str) -> None:
        self._tell_gateway(NodesLeft((node_id,)))
        self._apply(self._leases.said_goodbye(node_id, self._now()))

    def down(self, message: Down) -> None:
        for node_id, node in self._nodes.items():
            if node.link is message.ref:
                node.link = node.monitor = None
                self._apply(self._leases.disconnected(node_id, self._now()))
                return

    def removed(self, node_id: str) -> None:
        node = self._nodes.pop(node_id, None)
        if node is None:
            return
        if node.monitor is not None:
            node.monitor.cancel()
        self.orders.removed(node_id, REMOVED)
        self._frees.forget(node_id)
        self.unknown.forget(node_id)
        self._backlogs.forget(node_id)
        self._apply(self._leases.removed(node_id, self._now()))
        self._shown.removed(node_id)
        self.context.revisions.clusters.changed(node.record.cluster_id)

    @property
    def all_lost(self) -> bool:
        """Whether no node is here or waited for."""
        return self._leases.all_lost and not any(one.link for one in self._nodes.values())

    def stop(self, node_id: str, reply: Reply, *, drain: bool) -> None:
        """Raises Refused."""
        node, link = self._linked(
            node_id, "is not connected; stop it where it runs (manta_node stop)."
        )
        # Draining, so that what it ends on its way out is not placed there again.
        node.asked_to_stop = self._now()
        self._apply(self._leases.set_draining(node_id, node.asked_to_stop, draining=True))
        _ask(link, StopNode(drain), reply, node.record.alias)

    def ask(self, node_id: str, message: ReadTree | ReadStacks, reply: Reply) -> None:
        """Raises Refused."""
        node, link = self._linked(node_id, "is not connected: it cannot be asked.")
        _ask(link, message, reply, node.record.alias)

    def _linked(self, node_id: str, otherwise: str) -> tuple[ClusterNode, Ref]:
        """Raises Refused, with a sentence that ends in `otherwise`."""
        node = self._nodes.get(node_id)
        if node is None or node.link is None:
            alias = self.view.aliases.get(node_id, node_id)
            raise Refused(Code.WRONG_STATE, f"The node {alias!r} {otherwise}")
        return node, node.link

    # Leases.

    def tick(self) -> None:
        self._timer = None
        self._apply(self._leases.tick(self._now()))
        self._publish_notices()

    def _apply(self, actions: list[LeaseAction]) -> None:
        for action in actions:
            match action:
                case NodeStateChanged(node_id, state):
                    self.actor.log.info("node %s is %s", self._name(node_id), state)
                    if state in (NodeState.CONNECTED, NodeState.DRAINING):
                        self.orders.peers.back(node_id)
                    self._shown.show(node_id)
                case Lost(node_id, reason):
                    self.actor.log.warning("node %s is lost: %s", self._name(node_id), reason)
                    self._tell_gateway(NodesLeft((node_id,)))
                    if (node := self._nodes.get(node_id)) is not None:  # it is told no more of them
                        node.rosters = dict.fromkeys(node.rosters, UNTOLD)
                    self.orders.peers.lost(node_id, reason)
                    self.orders.spreads.gone(node_id)
                    self.on_lost(node_id, reason)
                case Away(node_id):
                    self._tell_gateway(NodesLeft((node_id,)))
                    self._shown.show(node_id)
                    self.on_moved()
                case Isolated(sentence=sentence):
                    self.actor.log.error("%s", sentence)
                    self._isolation = sentence
                case Reunited(sentence):
                    self.actor.log.warning("%s", sentence)
                    self._isolation = ""
                case Silent(node_id):
                    self.actor.log.info("node %s missed a heartbeat, or is back", node_id)
                case _:
                    assert_never(action)
        if actions:
            self.orders.tell_peers()
            self._publish_notices()
        self._set_timer()

    # What keeps swarms waiting.

    def _publish_notices(self) -> None:
        """Publishes who is silent, who is behind and what is amiss, if that changed."""
        now = self._now()
        silences, behind = self._leases.silences(), self._backlogs.shown(now)
        told = (self._isolation, self.unknown.sentence(self.view.aliases, now))
        seen = (silences, behind, " ".join(filter(None, told)))
        if seen != self._noticed:
            self._noticed = seen
            self.view.silences, self.view.behind, self.view.notice = seen
            self.on_noticed()

    def _stored(self, node_id: str, swarm_id: str, upto: int) -> None:
        if self._backlogs.stored(node_id, swarm_id, upto, self._now()):
            self._publish_notices()

    def swarm_ended(self, swarm_id: str, *, kill: bool = False) -> None:
        self._backlogs.swarm_ended(swarm_id)
        self.orders.swarm_ended(swarm_id, kill=kill)

    def swarm_removed(self, swarm_id: str) -> None:
        self._frees.removed(swarm_id)
        self.swarm_ended(swarm_id)

    def _ahead(self, node: ClusterNode, journals: dict[str, int]) -> dict[str, int]:
        """What it has in its journals of running swarms that it was given, and is not all here."""
        given = self.orders.given(node.record.id)
        return {
            swarm_id: last
            for swarm_id, last in journals.items()
            if swarm_id in self.orders.running
            and swarm_id in given
            and last > node.acknowledged.get(swarm_id, 0)
        }

    def _set_timer(self) -> None:
        due = self._leases.next_deadline()
        if self._timer is not None:
            if due is not None and due >= self._timer.deadline:
                return  # it comes early enough, and is then set again
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self.actor.after(max(0.0, due - self._now()), LeaseTick())

    def _name(self, node_id: str) -> str:
        node = self._nodes.get(node_id)
        return node.name if node else node_id

    def cut_all(self) -> None:
        """Makes all nodes register again and resend what was not acknowledged."""
        linked = [node_id for node_id, node in self._nodes.items() if node.link is not None]
        self._tell_gateway(CutNodes(tuple(linked)))

    def _tell_gateway(self, message: CutNodes | NodesLeft) -> None:
        """A Gateway that is being restarted need not be told: its end has cut all links."""
        self.actor.notify(GATEWAY, message)


def _ask(link: Ref, message: StopNode | ReadTree | ReadStacks, reply: Reply, alias: str) -> None:
    """Replies with what the node answers."""

    def done(asked: Future[Any]) -> None:
        error = asked.exception()
        if isinstance(error, ActorError) and not isinstance(error, Refused):
            sentence = f"The node {alias!r} did not answer: {error}; try again."
            error = Refused(Code.UNAVAILABLE, sentence)
        if error is not None:
            reply.fail(error)
        else:
            reply.set(asked.result())

    link.ask_future(message, timeout=ANSWER_TIMEOUT).add_done_callback(done)
